package supervisor_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/client"
)

// newAttack is a node whose image contains the attacker program.
func newAttack(t testing.TB) *node {
	t.Helper()
	n := newNode(t)
	n.arm(0o755)
	return n
}

// arm puts the attacker program into the image.
func (n *node) arm(mode os.FileMode) {
	n.Helper()
	text, err := os.ReadFile(filepath.Join(programs, "attacker"))
	if err == nil {
		err = os.WriteFile(filepath.Join(n.layer, "attacker"), text, 0o755)
	}
	if err == nil {
		err = os.Chmod(filepath.Join(n.layer, "attacker"), mode)
	}
	if err != nil {
		n.Fatal(err)
	}
}

// attack is a container that runs an attack.
func (n *node) attack(id string, args ...string) client.Request {
	n.Helper()
	r := n.request(id)
	r.Spec.Process.Args = append([]string{"/attacker"}, args...)
	return r
}

// shared makes a directory that every user may write to, and a bind mount of it at target.
func (n *node) shared(target string) (string, specs.Mount) {
	n.Helper()
	dir := n.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		n.Fatal(err)
	}
	return dir, specs.Mount{Type: "bind", Source: dir, Destination: target, Options: []string{"rbind"}}
}

// TestAttack_NothingOfTheKernelIsWritable tries every file below /proc and /sys, so that a file which a new kernel
// adds is noticed too. The mounts' own limits and parameters of the container's namespaces are read-only like all else.
func TestAttack_NothingOfTheKernelIsWritable(t *testing.T) {
	n := newAttack(t)
	_, out := n.complete(n.attack("c", "writable", "/proc", "/sys"))
	if diff := cmp.Diff([]string{}, decode[[]string](t, out)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	control := n.attack("control", "writable", "/proc/sys")
	control.Spec.Linux.ReadonlyPaths = nil
	if _, out := n.complete(control); len(decode[[]string](t, out)) == 0 {
		t.Error("the control: nothing is writable without read-only paths either")
	}
}

// TestAttack_DeviceNodes holds that a device node which came from elsewhere opens no device: in the image, in a
// directory of the host, or in the writable layer.
func TestAttack_DeviceNodes(t *testing.T) {
	n := newAttack(t)
	host, mount := n.shared("/data")
	layered := n.TempDir()
	for _, dir := range []string{n.layer, host, layered} {
		name := filepath.Join(dir, "zero")
		if err := errors.Join(unix.Mknod(name, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))), os.Chmod(name, 0o666)); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name, filepath.Join(dir, "node-"+filepath.Base(dir))); err != nil {
			t.Fatal(err)
		}
	}
	inImage, inHost, inLayer := "/node-"+filepath.Base(n.layer), "/data/node-"+filepath.Base(host), "/node-"+filepath.Base(layered)
	if f, err := os.OpenFile(filepath.Join(n.layer, inImage), os.O_RDWR, 0); err != nil { // the control
		t.Skipf("needs a file system on which device nodes work: %v", err)
	} else {
		f.Close()
	}
	r := n.attack("c", "open", inImage, inHost, inLayer, "/dev/zero")
	r.Spec.Mounts = append(r.Spec.Mounts, mount)
	r.Rootfs = client.Rootfs{Lower: []string{layered, n.layer}, ReadOnly: true}
	_, out := n.complete(r)
	denied := unix.EACCES.Error()
	want := map[string]string{inImage: denied, inHost: denied, inLayer: denied, "/dev/zero": "ok"}
	if diff := cmp.Diff(want, decode[map[string]string](t, out)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestAttack_SetUserID holds that a set-user-id program gives nobody rights: not of the image, and not of a directory
// of the host.
func TestAttack_SetUserID(t *testing.T) {
	n := newAttack(t)
	n.arm(0o755 | os.ModeSetuid)
	host, mount := n.shared("/data")
	text, err := os.ReadFile(filepath.Join(n.layer, "attacker"))
	if err == nil {
		err = os.WriteFile(host+"/attacker", text, 0o755)
	}
	if err = errors.Join(err, os.Chmod(host+"/attacker", 0o755|os.ModeSetuid)); err != nil {
		t.Fatal(err)
	}
	for i, program := range []string{"/attacker", "/data/attacker"} {
		for _, confined := range []bool{true, false} {
			r := n.attack(fmt.Sprintf("c%d-%v", i, confined), "ids")
			r.Spec.Process.Args[0] = program
			r.Spec.Process.User = specs.User{UID: 1000, GID: 1000}
			r.Spec.Process.NoNewPrivileges = confined
			r.Spec.Mounts = append(r.Spec.Mounts, mount)
			_, out := n.complete(r)
			want := []int{1000, 1000}
			if !confined && i == 0 {
				want[1] = 0 // the control: what no-new-privileges prevents, within the container's user namespace
			}
			if diff := cmp.Diff(want, decode[[]int](t, out)); diff != "" {
				t.Errorf("%s, no new privileges %v: real and effective user (-want +got):\n%s", program, confined, diff)
			}
		}
	}
}

// TestAttack_OtherContainers holds that a container reaches no process of another, though both have the same ids.
func TestAttack_OtherContainers(t *testing.T) {
	n := newAttack(t)
	const name = "skep-attack-victim"
	victim := n.begin(n.attack("victim", "victim", name))
	n.awaitLine("victim", "ready")
	_, out := n.complete(n.attack("c", "reach", strconv.Itoa(victim.Pid), name))
	want := map[string]string{
		"signal": unix.ESRCH.Error(), "signal all": unix.ESRCH.Error(), "trace": unix.ESRCH.Error(),
		"read memory": unix.ESRCH.Error(), "pidfd": unix.ESRCH.Error(), "priority": unix.ESRCH.Error(),
		"shared memory": unix.ENOENT.Error(), "see": "not there", "dial": "refused",
	}
	if diff := cmp.Diff(want, decode[map[string]string](t, out)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := n.Kill(t.Context(), "victim", syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := n.await("victim", client.EventExited); got.ExitCode != 7 {
		t.Errorf("the victim ended with %+v", got)
	}
}

// TestAttack_PidOneThatIgnoresSignals holds that a container can always be ended.
func TestAttack_PidOneThatIgnoresSignals(t *testing.T) {
	n := newAttack(t)
	state := n.begin(n.attack("c", "stubborn"))
	n.awaitLine("c", "ready")
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT} {
		if err := n.Kill(t.Context(), "c", sig); err != nil {
			t.Fatal(err)
		}
	}
	if ignored := ignoredSignals(t, state.Pid); ignored&(1<<(unix.SIGTERM-1)) == 0 {
		t.Fatalf("it ignores %#x only", ignored)
	}
	if got, err := n.State(t.Context(), "c"); err != nil || got.Status != client.Running {
		t.Errorf("after signals that it ignores: %+v, %v", got, err)
	}
	if err := n.Kill(t.Context(), "c", syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if got := n.await("c", client.EventExited); got.ExitCode != 137 {
		t.Errorf("it ended with %+v", got)
	}
}

func ignoredSignals(t *testing.T, pid int) uint64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`SigIgn:\s*([0-9a-f]+)`).FindStringSubmatch(string(text))
	if found == nil {
		t.Fatalf("no SigIgn in %s", text)
	}
	set, err := strconv.ParseUint(found[1], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestAttack_KernelFileSystemsAreTheKernels holds that no directory of the host stands in for /proc: parameters would
// be written to files of whoever owns it, and the container would think them set (CVE-2025-52881).
func TestAttack_KernelFileSystemsAreTheKernels(t *testing.T) {
	n := newAttack(t)
	host, _ := n.shared("/proc")
	if err := os.MkdirAll(host+"/sys/net/ipv4", 0o777); err != nil {
		t.Fatal(err)
	}
	fake := host + "/sys/net/ipv4/ip_unprivileged_port_start"
	if err := errors.Join(os.WriteFile(fake, []byte("untouched"), 0o666), os.Chmod(fake, 0o666)); err != nil {
		t.Fatal(err)
	}
	r := n.attack("c", "ids")
	for i, m := range r.Spec.Mounts {
		if m.Destination == "/proc" {
			r.Spec.Mounts[i] = specs.Mount{Type: "bind", Source: host, Destination: "/proc", Options: []string{"rbind"}}
		}
	}
	_, err := n.Create(t.Context(), r)
	if err == nil {
		t.Error("a directory of the host was taken for /proc")
	}
	t.Log(err)
	if text, err := os.ReadFile(fake); err != nil || string(text) != "untouched" {
		t.Errorf("the parameter was written to a file of the host: %q, %v", text, err)
	}
}

// TestAttack_MasksAreTheHostsNullDevice holds that what stands at /dev/null in an image, or in a directory mounted over
// /dev, never takes part in masking (CVE-2025-31133).
func TestAttack_MasksAreTheHostsNullDevice(t *testing.T) {
	if _, err := os.Stat("/proc/keys"); err != nil {
		t.Skipf("needs /proc/keys, which is masked as a file: %v", err)
	}
	n := newAttack(t)
	host, mount := n.shared("/dev")
	for _, dev := range []string{filepath.Join(n.layer, "dev"), host} {
		if err := os.MkdirAll(dev, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/proc/sys/kernel/hostname", dev+"/null"); err != nil {
			t.Fatal(err)
		}
	}
	for id, over := range map[string]bool{"image": false, "mounted": true} {
		r := n.request(id, "files", "/proc/keys")
		if over {
			r.Spec.Mounts = append(r.Spec.Mounts, mount)
		}
		_, out := n.complete(r)
		got := decode[map[string]string](t, out)["/proc/keys"]
		if !strings.HasPrefix(got, " -rw-rw-rw- 65534:65534") { // empty, and nobody's
			t.Errorf("%s: /proc/keys is %q", id, got)
		}
	}
}

// TestAttack_LinksLeadNothingOverKernelFileSystems holds that an image can't have a volume or a secret mounted over a
// part of /proc, /sys or /dev by a link, and so change what stands there, or leave what is below unmasked.
func TestAttack_LinksLeadNothingOverKernelFileSystems(t *testing.T) {
	for _, to := range []string{"/proc", "/proc/sys", "/proc/fs", "/sys", "/sys/firmware", "/sys/fs/cgroup", "/dev", "/dev/shm"} {
		t.Run(strings.ReplaceAll(to[1:], "/", "-"), func(t *testing.T) {
			n := newAttack(t)
			_, mount := n.shared("/data")
			if err := errors.Join(os.MkdirAll(n.layer+to, 0o755), os.MkdirAll(n.layer+"/run", 0o755),
				os.Symlink(to, n.layer+"/data"), os.Symlink(to, n.layer+"/run/secrets")); err != nil {
				t.Fatal(err)
			}
			_, text := n.complete(n.request("plain", "look"))
			r := n.request("c", "look")
			r.Spec.Mounts = append(r.Spec.Mounts, mount)
			r.Files = []client.File{{Dir: "/run/secrets", Name: "key", Data: client.Secret("s")}}
			state, attacked := n.complete(r)
			if state.ExitCode != 0 {
				t.Fatalf("state %+v", state)
			}
			got := decode[look](t, attacked).Mounts
			if diff := cmp.Diff(decode[look](t, text).Mounts, got); diff != "" {
				t.Errorf("mounts, without and with the attack (-want +got):\n%s", diff)
			}
		})
	}
}
