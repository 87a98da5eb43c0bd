package supervisor_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/lsm"
)

// share takes namespaces out of a request, for those of the host, with the mounts that only work for a namespace of one's own.
func share(r *client.Request, kinds ...specs.LinuxNamespaceType) {
	r.Share = kinds
	has := func(kind specs.LinuxNamespaceType) bool { return slices.Contains(kinds, kind) }
	l := r.Spec.Linux
	l.Namespaces = slices.DeleteFunc(slices.Clone(l.Namespaces), func(n specs.LinuxNamespace) bool { return has(n.Type) })
	if has(specs.UserNamespace) {
		l.UIDMappings, l.GIDMappings = nil, nil
	}
	if has(specs.NetworkNamespace) {
		l.Sysctl = nil
	}
	if has(specs.UserNamespace) {
		return
	}
	for i, m := range r.Spec.Mounts {
		if m.Type == "sysfs" && has(specs.NetworkNamespace) {
			r.Spec.Mounts[i] = specs.Mount{Destination: "/sys", Type: "bind", Source: "/sys", Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"}}
		}
		if m.Type == "proc" && has(specs.PIDNamespace) {
			r.Spec.Mounts[i] = specs.Mount{Destination: "/proc", Type: "bind", Source: "/proc", Options: []string{"bind", "nosuid", "noexec", "nodev"}}
		}
	}
	if has(specs.IPCNamespace) {
		r.Spec.Mounts = slices.DeleteFunc(r.Spec.Mounts, func(m specs.Mount) bool { return m.Type == "mqueue" })
	}
}

// Each namespace can be the host's, alone and with others, and all that isolates the container otherwise stays.
func TestShared_NamespacesAreTheHosts(t *testing.T) {
	const pid, ipc, user, network = specs.PIDNamespace, specs.IPCNamespace, specs.UserNamespace, specs.NetworkNamespace
	names := map[string]specs.LinuxNamespaceType{
		"pid": pid, "ipc": ipc, "user": user, "mnt": specs.MountNamespace, "net": specs.NetworkNamespace, "uts": specs.UTSNamespace,
		"cgroup": specs.CgroupNamespace,
	}
	hostMap, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t)
	for i, kinds := range [][]specs.LinuxNamespaceType{{pid}, {ipc}, {user}, {network}, {network, user}, {pid, user}, {pid, ipc, user, network}} {
		r := n.request(fmt.Sprintf("c%d", i), "look")
		share(&r, kinds...)
		state, text := n.complete(r)
		if state.ExitCode != 0 {
			t.Errorf("%v: state %+v, output %s, %s", kinds, state, text, n.output(r.ID, "stderr"))
			continue
		}
		got := decode[look](t, text)
		for file, kind := range names {
			host, err := os.Readlink("/proc/self/ns/" + file)
			if err != nil || (got.Namespaces[file] == host) != slices.Contains(kinds, kind) {
				t.Errorf("%v: %s is %q, the host's is %q, %v", kinds, file, got.Namespaces[file], host, err)
			}
		}
		for key, want := range map[string]string{
			"CapEff": "00000000a80425fb", "CapBnd": "00000000a80425fb", "CapAmb": "0000000000000000", "Seccomp": "2", "NoNewPrivs": "1",
		} {
			if got.Status[key] != want {
				t.Errorf("%v: %s is %q, want %q", kinds, key, got.Status[key], want)
			}
		}
		wantMap := "0 100000 65536"
		if slices.Contains(kinds, user) {
			wantMap = strings.Join(strings.Fields(string(hostMap)), " ")
		}
		if got.UIDMap != wantMap || slices.Contains(state.Enforced, "userns") == slices.Contains(kinds, user) {
			t.Errorf("%v: uid_map is %q, in force %v", kinds, got.UIDMap, state.Enforced)
		}
		if slices.Contains(kinds, pid) == (got.Status["Pid"] == "1") {
			t.Errorf("%v: the process has the number %s", kinds, got.Status["Pid"])
		}
		if foreignRuntime != "" {
			continue // runc's own mounts have other flags
		}
		for _, target := range []string{"/proc/sys", "/proc/keys", "/sys/firmware"} {
			if _, err := os.Stat(target); err == nil && !strings.HasPrefix(got.Mounts[target], "ro,") {
				t.Errorf("%v: %s is %q", kinds, target, got.Mounts[target])
			}
		}
		for target, options := range got.Mounts {
			if device := strings.HasSuffix(options, "devtmpfs") || target == "/dev/pts"; !device && !strings.Contains(options, "nodev") {
				t.Errorf("%v: devices work in %s: %s", kinds, target, options)
			}
		}
	}
}

// Where the processes of the host are the container's, it has none of its own kind to end with its first one: the supervisor ends them.
func TestShared_NothingOutlivesTheFirstProcess(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "fork", "5")
	share(&r, specs.PIDNamespace)
	state, text := n.complete(r)
	if state.ExitCode != 0 || strings.TrimSpace(text) != "started 5" {
		t.Fatalf("state %+v, output %q", state, text)
	}
	if err := n.Delete(t.Context(), "c"); err != nil { // which fails while something is in its control group
		t.Error(err)
	}
}

// Without the word of whoever asks, a configuration that lists fewer namespaces is refused.
func TestShared_TakesTheWordOfWhoAsks(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "look")
	share(&r, specs.PIDNamespace)
	r.Share = nil
	if _, err := n.Create(t.Context(), r); err == nil || !strings.Contains(err.Error(), "a new pid namespace is required") {
		t.Errorf("got %v", err)
	}
}

// Nor does what forks as fast as it can.
func TestShared_AForkBombEndsWhole(t *testing.T) {
	n := newAttack(t)
	r := n.attack("bomb", "bomb")
	limits(r.Spec, 256<<20, 128)
	share(&r, specs.PIDNamespace)
	n.begin(r)
	n.awaitLine("bomb", "ready")
	n.until("the bomb at its size", func() bool { return len(groupPids(t, n, "bomb")) >= 16 })
	if err := n.Kill(t.Context(), "bomb", unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	n.await("bomb", client.EventExited)
	n.until("nothing left over", func() bool { return len(groupPids(t, n, "bomb")) == 0 })
}

// Abstract unix sockets have no modes, and those of the host are in its network: they are out of reach there, too, where the kernel can
// forbid that. What is not confined by Landlock reaches them: so the test would see it.
func TestShared_TheHostsAbstractSocketsAreClosed(t *testing.T) {
	const scope = 6 // the ABI that has it
	if lsm.Landlock() < scope {
		t.Skip("needs Landlock of ABI 6 or later (Linux 6.12), and lsm=landlock")
	}
	name := fmt.Sprintf("skep-test-%d", os.Getpid())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "@" + name})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("of the host"))
			conn.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	n := newNode(t)
	run := func(id string, capabilities ...string) (string, client.State) {
		r := n.request(id, "call", name)
		share(&r, specs.NetworkNamespace)
		caps := slices.Concat(r.Spec.Process.Capabilities.Bounding, capabilities)
		r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		state, out := n.complete(r)
		return out + n.output(id, "stderr"), state
	}
	if out, state := run("open", "CAP_SYS_ADMIN"); !strings.Contains(out, "of the host") {
		t.Fatalf("the control: %q, %+v", out, state)
	}
	if out, state := run("closed"); !strings.Contains(out, "operation not permitted") {
		t.Errorf("got %q, %+v", out, state)
	}
}
