package supervisor_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/skep-io/skep/runtime/client"
)

// look is the report of the inside program.
type look struct {
	Namespaces map[string]string
	Status     map[string]string
	UIDMap     string
	Mounts     map[string]string
	FDs        []string
	Cgroup     string
	Hostname   string
	Cwd        string
	Args, Env  []string
	Interfaces []string
	Stdin      string
	Stdout     string
	Limits     string
}

func TestInside_Isolation(t *testing.T) {
	n := newNode(t)
	state, text := n.complete(n.request("c", "look"))
	if state.ExitCode != 0 {
		t.Fatalf("state %+v, output %s", state, text)
	}
	got := decode[look](t, text)
	for _, ns := range []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"} {
		host, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil || got.Namespaces[ns] == host || got.Namespaces[ns] == "" {
			t.Errorf("%s namespace is %q, the host's is %q, %v", ns, got.Namespaces[ns], host, err)
		}
	}
	for key, want := range map[string]string{
		"CapEff": "00000000a80425fb", "CapBnd": "00000000a80425fb", "CapPrm": "00000000a80425fb",
		"CapInh": "0000000000000000", "CapAmb": "0000000000000000", "Seccomp": "2", "Seccomp_filters": "1",
		"NoNewPrivs": "1", "Pid": "1", "PPid": "0", "Uid": "0\t0\t0\t0", "Groups": "", "SigIgn": "0000000000000000",
		"SigBlk": "0000000000000000",
	} {
		if key == "SigIgn" && foreignRuntime != "" {
			continue // runc hands on what its caller ignores, such as make's signal 32
		}
		if got.Status[key] != want {
			t.Errorf("%s is %q, want %q", key, got.Status[key], want)
		}
	}
	if got.UIDMap != "0 100000 65536" {
		t.Errorf("uid_map is %q", got.UIDMap)
	}
	if diff := cmp.Diff([]string{"0", "1", "2"}, got.FDs); diff != "" {
		t.Errorf("descriptors (-want +got):\n%s", diff)
	}
	if got.Hostname != "h-c" || got.Cwd != "/" || got.Stdin != "/dev/null" || got.Stdout != "/stdout" {
		t.Errorf("hostname %q, cwd %q, stdin %q, stdout %q", got.Hostname, got.Cwd, got.Stdin, got.Stdout)
	}
	if diff := cmp.Diff([]string{"lo up|loopback|running"}, got.Interfaces); diff != "" {
		t.Errorf("interfaces (-want +got):\n%s", diff)
	}
	for line := range strings.Lines(got.Cgroup) {
		if !strings.HasSuffix(strings.TrimSpace(line), ":/") && !strings.HasSuffix(strings.TrimSpace(line), ":/..") {
			t.Errorf("a path of the host's control groups: %s", line)
		}
	}
	if diff := cmp.Diff([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, own(got.Env)); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
	if !regexp.MustCompile(`Max core file size +0 +0 `).MatchString(got.Limits) {
		t.Errorf("core dumps are possible:\n%s", got.Limits)
	}
}

func TestInside_Mounts(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "look")
	for _, name := range []string{"hosts", "hostname"} { // which are attached beside the root on the way
		r.Files = append(r.Files, client.File{Dir: "/etc", Name: name, Single: true})
	}
	_, text := n.complete(r)
	got := decode[look](t, text).Mounts
	for target, want := range map[string]string{
		"/":                   "ro,nosuid,nodev,relatime overlay",
		"/proc":               "rw,nosuid,nodev,noexec,relatime proc",
		"/dev":                "rw,nosuid,nodev,noexec tmpfs",
		"/dev/pts":            "rw,nosuid,noexec,relatime devpts",
		"/dev/shm":            "rw,nosuid,nodev,noexec,relatime tmpfs",
		"/dev/mqueue":         "rw,nosuid,nodev,noexec,relatime mqueue",
		"/sys":                "ro,nosuid,nodev,noexec,relatime sysfs",
		"/proc/sys":           "ro,nosuid,nodev,noexec,relatime proc",
		"/proc/keys":          "ro,nosuid,noexec,relatime devtmpfs",
		"/sys/firmware":       "ro,nosuid,nodev,noexec,relatime tmpfs",
		"/dev/null":           "rw,nosuid,noexec,relatime devtmpfs",
		"/dev/urandom":        "rw,nosuid,noexec,relatime devtmpfs",
		"/proc/sysrq-trigger": "ro,nosuid,nodev,noexec,relatime proc",
	} {
		if _, err := os.Stat(target); err != nil {
			continue // not on this kernel
		}
		if got[target] != want {
			t.Errorf("%s is %q, want %q", target, got[target], want)
		}
	}
	for target := range got {
		if !regexp.MustCompile(`^/$|^/(proc|dev|sys)(/|$)|^/etc/host(s|name)$`).MatchString(target) {
			t.Errorf("a mount that nobody asked for: %s", target)
		}
	}
}

func TestInside_ForbiddenThings(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "try")
	r.Files = []client.File{{Dir: "/run/secrets", Name: "key", Data: client.Secret("s")}}
	_, text := n.complete(r)
	got := decode[map[string]string](t, text)
	for what, want := range map[string]string{
		"mknod": "operation not permitted", "mount": "operation not permitted", "unshare user": "operation not permitted",
		"unshare mount": "operation not permitted", "sethostname": "operation not permitted",
		"settimeofday": "operation not permitted", "reboot": "operation not permitted", "swapon": "operation not permitted",
		"bpf": "operation not permitted", "keyctl": "operation not permitted", "new call": "function not implemented",
		"rootfs write": "read-only file system", "proc sys": "read-only file system", "sys": "read-only file system",
		"secret write":     "read-only file system",
		"read /proc/kcore": "0 bytes", "read /proc/keys": "0 bytes", "read /proc/timer_list": "0 bytes",
		"read /proc/interrupts": "0 bytes", "list /sys/firmware": "0 entries, <nil>",
	} {
		if file, ok := strings.CutPrefix(what, "read "); ok {
			if _, err := os.Stat(file); err != nil {
				continue // not on this kernel
			}
		}
		if got[what] != want {
			t.Errorf("%s: %q, want %q", what, got[what], want)
		}
	}
}

func TestInside_User(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "look")
	r.Spec.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{5, 6}}
	r.Spec.Process.Cwd = "/home/app/work"
	r.Spec.Process.Env = []string{"PATH=/x:/", "A=b c"}
	r.Spec.Process.Args = []string{"inside", "look"}
	_, text := n.complete(r)
	got := decode[look](t, text)
	for key, want := range map[string]string{
		"Uid": "1000\t1000\t1000\t1000", "Gid": "1001\t1001\t1001\t1001", "Groups": "5 6",
		"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapBnd": "00000000a80425fb",
	} {
		if got.Status[key] != want {
			t.Errorf("%s is %q, want %q", key, got.Status[key], want)
		}
	}
	if got.Cwd != "/home/app/work" || got.Args[0] != "inside" {
		t.Errorf("cwd %q, args %q", got.Cwd, got.Args)
	}
	if diff := cmp.Diff(r.Spec.Process.Env, own(got.Env)); diff != "" {
		t.Errorf("environment (-want +got):\n%s", diff)
	}
}

func TestInside_EveryUserMayOpenStandardOutput(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "reopen")
	if _, out := n.complete(r); out != "reopened\n" {
		t.Errorf("as root: %q", out)
	}
	r = n.request("d", "reopen")
	r.Spec.Process.User = specs.User{UID: 1000, GID: 1000}
	if _, out := n.complete(r); out != "reopened\n" {
		t.Errorf("as a user: %q", out)
	}
}

func TestInside_SeesItsOwnLimits(t *testing.T) {
	n := newNode(t)
	memory, pids := "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max"
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		memory, pids = "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"
	}
	r := n.request("c", "files", memory, pids)
	limits(r.Spec, 64<<20, 77)
	_, text := n.complete(r)
	got := decode[map[string]string](t, text)
	if !strings.HasPrefix(got[memory], "67108864\n") || !strings.HasPrefix(got[pids], "77\n") {
		t.Errorf("limits from inside: %v", got)
	}
}

func TestInside_NoNewPrivilegesOff(t *testing.T) {
	n := newNode(t)
	r := n.request("c", "look")
	r.Spec.Process.NoNewPrivileges = false
	r.Spec.Process.Capabilities = &specs.LinuxCapabilities{
		Bounding: []string{"CAP_CHOWN", "CAP_NET_BIND_SERVICE"}, Permitted: []string{"CAP_NET_BIND_SERVICE"},
		Inheritable: []string{"CAP_NET_BIND_SERVICE"}, Ambient: []string{"CAP_NET_BIND_SERVICE"},
		Effective: []string{"CAP_NET_BIND_SERVICE"},
	}
	r.Spec.Process.User = specs.User{UID: 7, GID: 7}
	_, text := n.complete(r)
	got := decode[look](t, text)
	for key, want := range map[string]string{
		"NoNewPrivs": "0", "Seccomp": "2", "CapBnd": "0000000000000401", "CapAmb": "0000000000000400",
		"CapEff": "0000000000000400",
	} {
		if got.Status[key] != want {
			t.Errorf("%s is %q, want %q", key, got.Status[key], want)
		}
	}
}

func TestInside_Files(t *testing.T) {
	n := newNode(t)
	hosts := t.TempDir() + "/hosts"
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.layer+"/etc/motd", []byte("image"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := n.request("c", "files", "/run/secrets/key", "/run/secrets/cert", "/etc/app.conf", "/motd", "/etc/hosts", "/etc/motd")
	r.Files = []client.File{
		{Dir: "/run/secrets", Name: "key", Data: client.Secret("hunter2")},
		{Dir: "/run/secrets", Name: "cert", Mode: 0o400, UID: 33, GID: 34, Data: client.Secret("c")},
		{Dir: "/etc", Name: "app.conf", Single: true, Data: client.Secret("conf")},
		{Dir: "/", Name: "motd", Single: true, Data: client.Secret("hello")},
	}
	r.Spec.Mounts = append(r.Spec.Mounts, specs.Mount{
		Type: "bind", Source: hosts, Destination: "/etc/hosts", Options: []string{"ro", "rbind", "idmap"},
	})
	state, text := n.complete(r)
	const tmpfs, ramfs, disk = " fs 0x1021994", " fs 0x858458f6", " fs 0x"
	text = strings.ReplaceAll(text, ramfs, tmpfs) // before 6.4
	got := decode[map[string]string](t, text)
	for name, want := range map[string]string{
		"/run/secrets/key":  "hunter2 -r--r--r-- 0:0" + tmpfs,
		"/run/secrets/cert": "c -r-------- 33:34" + tmpfs,
		"/etc/app.conf":     "conf -r--r--r-- 0:0" + tmpfs,
		"/motd":             "hello -r--r--r-- 0:0" + tmpfs,
		"/etc/hosts":        "127.0.0.1 localhost -rw-r--r-- 0:0" + disk,
		"/etc/motd":         "image -rw-r--r-- 0:0" + disk,
	} {
		if !strings.HasPrefix(got[name], want) {
			t.Errorf("%s: %q, want %q (state %+v)", name, got[name], want, state)
		}
	}
}
