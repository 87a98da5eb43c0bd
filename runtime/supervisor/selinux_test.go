package supervisor_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/client"
	"github.com/skep-io/skep/runtime/lsm"
)

// needSELinux skips where SELinux enforces no policy that knows containers.
func needSELinux(t *testing.T) {
	t.Helper()
	if !lsm.SELinux() || !lsm.SELinuxEnforces() {
		t.Skip("needs a kernel in which SELinux enforces a policy with labels for containers; make e2e-vm has one")
	}
}

// labelsOf makes labels for the test.
func labelsOf(t *testing.T, options ...string) lsm.Labels {
	t.Helper()
	labels, err := lsm.NewLabels(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lsm.ReleaseLabel(labels.Process) })
	return labels
}

// labelled is a request for a container with labels.
func labelled(n *node, id string, labels lsm.Labels, args ...string) client.Request {
	r := n.request(id, args...)
	r.Spec.Process.SelinuxLabel, r.Spec.Linux.MountLabel = labels.Process, labels.Mount
	return r
}

// labelledDir makes a directory with a file for each name, which have the labels.
func labelledDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, label := range files {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte("content of "+name), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := unix.Lsetxattr(path, "security.selinux", []byte(label), 0); err != nil {
			t.Fatal(err)
		}
	}
	shared, _, _ := strings.Cut(files["own"], ":c")
	if err := unix.Lsetxattr(dir, "security.selinux", []byte(shared), 0); err != nil {
		t.Fatal(err)
	}
	for at := dir; at != "/tmp" && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A container reads what has its own label, and not what has another container's or the host's, though all modes would let it. One
// without a label reads all three: so the test would see it.
func TestSELinux_KeepsContainersApart(t *testing.T) {
	needSELinux(t)
	n := newNode(t)
	a, b := labelsOf(t), labelsOf(t)
	if a == b || a.Process == "" {
		t.Fatalf("labels %+v and %+v", a, b)
	}
	dir := labelledDir(t, map[string]string{"own": a.Mount, "others": b.Mount, "hosts": "system_u:object_r:host_t:s0"})
	run := func(id string, labels lsm.Labels) (map[string]string, client.State) {
		r := labelled(n, id, labels, "files", "/d/own", "/d/others", "/d/hosts", "/proc/thread-self/attr/current")
		r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{Destination: "/d", Type: "bind", Source: dir, Options: []string{"bind"}})
		state, out := n.complete(r)
		if state.ExitCode != 0 {
			t.Fatalf("%s: %+v, output %s, %s", id, state, out, n.output(id, "stderr"))
		}
		return decode[map[string]string](t, out), state
	}
	got, state := run("plain", lsm.Labels{})
	for _, name := range []string{"own", "others", "hosts"} {
		if !strings.HasPrefix(got["/d/"+name], "content of "+name) {
			t.Fatalf("the control: %s is %q, in force %v", name, got["/d/"+name], state.Enforced)
		}
	}
	got, state = run("a", a)
	if !strings.HasPrefix(got["/d/own"], "content of own") || !slices.Contains(state.Enforced, "selinux="+a.Process) {
		t.Errorf("its own file is %q, in force %v", got["/d/own"], state.Enforced)
	}
	if current := got["/proc/thread-self/attr/current"]; !strings.HasPrefix(current, a.Process) {
		t.Errorf("its label is %q, want %q", current, a.Process)
	}
	for _, name := range []string{"others", "hosts"} {
		if !strings.Contains(got["/d/"+name], "permission denied") {
			t.Errorf("%s is %q", name, got["/d/"+name])
		}
	}
	if got, _ := run("b", b); !strings.HasPrefix(got["/d/others"], "content of others") || !strings.Contains(got["/d/own"], "permission denied") {
		t.Errorf("the other container: %v", got)
	}
}

// Everything that a container has of its own has its label: so a container works, with secrets, queues, output and commands.
func TestSELinux_LabelsWhatIsTheContainers(t *testing.T) {
	needSELinux(t)
	n := newNode(t)
	labels := labelsOf(t)
	r := labelled(n, "c", labels, "labels", "/", "/inside", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/run/secrets/key", "/proc/self/fd/1")
	r.Files = []client.File{{Dir: "/run/secrets", Name: "key", Data: []byte("hunter2")}}
	state, out := n.complete(r)
	if state.ExitCode != 0 {
		t.Fatalf("%+v, output %s, %s", state, out, n.output("c", "stderr"))
	}
	for name, got := range decode[map[string]string](t, out) {
		if got != labels.Mount {
			t.Errorf("%s has the label %q, want %q", name, got, labels.Mount)
		}
	}
	r = labelled(n, "s", labels, "files", "/run/secrets/key")
	r.Files = []client.File{{Dir: "/run/secrets", Name: "key", Data: []byte("hunter2")}}
	if _, out := n.complete(r); !strings.Contains(out, "hunter2") {
		t.Errorf("its secret: %s", out)
	}
	// A label that the policy lacks is refused, by its name.
	bad := labels
	bad.Process = strings.Replace(bad.Process, "container_t", "nobody_t", 1)
	if _, err := n.Create(t.Context(), labelled(n, "bad", bad, "look")); err == nil || !strings.Contains(err.Error(), "confine by the SELinux label "+bad.Process) {
		t.Errorf("got %v", err)
	}
}

// A command in a container has its label, too.
func TestSELinux_ConfinesCommands(t *testing.T) {
	needSELinux(t)
	n := newNode(t)
	labels := labelsOf(t)
	n.begin(labelled(n, "c", labels, "wait"))
	n.awaitLine("c", "waiting")
	code, out, stderr := n.ended(n.exec("c", client.ExecRequest{}, "files", "/proc/thread-self/attr/current"))
	if code != 0 {
		t.Fatalf("code %d, %s%s", code, out, stderr)
	}
	if got := decode[map[string]string](t, out)["/proc/thread-self/attr/current"]; !strings.HasPrefix(got, labels.Process) {
		t.Errorf("its label is %q, want %q", got, labels.Process)
	}
}
