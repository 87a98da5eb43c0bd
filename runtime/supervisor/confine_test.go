package supervisor_test

import (
	"net"
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

// needLandlock skips where the kernel has no Landlock that containers can be confined by.
func needLandlock(t *testing.T) {
	t.Helper()
	if v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno != 0 || v < 2 {
		t.Skip("needs Landlock of ABI 2 or later, and lsm=landlock")
	}
}

// lend serves a descriptor of a directory on the host, and gives the mount by which a container reaches the socket.
func lend(t *testing.T, dir string) specs.Mount {
	t.Helper()
	share := t.TempDir()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(share, "s")})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(share, "s"), 0o777); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if f, err := os.Open(dir); err == nil {
				_, _, _ = conn.WriteMsgUnix([]byte{1}, unix.UnixRights(int(f.Fd())), nil)
				f.Close()
			}
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return specs.Mount{Destination: "/share", Type: "bind", Source: share, Options: []string{"rbind", "ro"}}
}

// A descriptor that leaks into a container opens nothing on the host. Without Landlock, which a container that may mount doesn't
// get, it does: so the test would see it.
func TestConfine_LeakedDescriptorsOpenNothing(t *testing.T) {
	needLandlock(t)
	n := newNode(t)
	host := t.TempDir()
	if err := os.Chmod(host, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := filepath.Dir(host); dir != "/tmp" && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(host, "name"), []byte("of the host"), 0o644); err != nil {
		t.Fatal(err)
	}
	mount := lend(t, host)
	run := func(id string, readOnly bool, capabilities ...string) (string, client.State) {
		r := n.request(id, "borrow")
		r.Spec.Mounts = append(r.Spec.Mounts, mount)
		r.Rootfs.ReadOnly = readOnly
		if !readOnly {
			dir := t.TempDir()
			r.Rootfs.Upper, r.Rootfs.Work = filepath.Join(dir, "u"), filepath.Join(dir, "w")
			for _, d := range []string{r.Rootfs.Upper, r.Rootfs.Work} {
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
			}
		}
		caps := slices.Concat(r.Spec.Process.Capabilities.Bounding, capabilities)
		r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		state, out := n.complete(r)
		return out, state
	}
	out, state := run("mounts", true, "CAP_SYS_ADMIN")
	if !strings.HasPrefix(out, "of the host") || slices.Contains(state.Enforced, "landlock") {
		t.Fatalf("the control: %q, in force %v", out, state.Enforced)
	}
	for id, readOnly := range map[string]bool{"readonly": true, "writable": false} {
		out, state = run(id, readOnly)
		if !strings.Contains(out, "permission denied") || !slices.Contains(state.Enforced, "landlock") {
			t.Errorf("%s: %q, in force %v", id, out, state.Enforced)
		}
	}
}

func TestConfine_SaysWhatIsInForce(t *testing.T) {
	n := newNode(t)
	state, _ := n.complete(n.request("c", "say", "x"))
	for _, want := range []string{"userns", "seccomp", "no-new-privileges"} {
		if !slices.Contains(state.Enforced, want) {
			t.Errorf("in force are %v, without %s", state.Enforced, want)
		}
	}
	r := n.request("d", "say", "x")
	r.Spec.Linux.Seccomp, r.Spec.Process.NoNewPrivileges = nil, false
	if state, _ = n.complete(r); !slices.Equal(state.Enforced, []string{"userns"}) {
		t.Errorf("in force are %v, want userns alone", state.Enforced)
	}
}

// A rule of the default AppArmor profile holds where everything else would allow it: the control shows that.
func TestConfine_AppArmor(t *testing.T) {
	if !lsm.AppArmor() {
		t.Skip("needs a kernel with AppArmor on")
	}
	n := newNode(t)
	if !lsm.ProfileLoaded() {
		t.Fatal("the supervisor did not load the profile")
	}
	run := func(id, profile string, arguments ...string) (string, client.State) {
		r := n.request(id, arguments...)
		caps := append(r.Spec.Process.Capabilities.Bounding, "CAP_SYS_ADMIN")
		r.Spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		r.Spec.Linux.Seccomp = nil
		r.Spec.Process.ApparmorProfile = profile
		state, out := n.complete(r)
		return out, state
	}
	out, state := run("free", "", "try")
	if got := decode[map[string]string](t, out)["mount"]; got != "ok" {
		t.Fatalf("the control: mount gives %q", got)
	}
	if slices.Contains(state.Enforced, "apparmor="+lsm.DefaultProfile) {
		t.Errorf("in force are %v without a profile", state.Enforced)
	}
	out, state = run("confined", lsm.DefaultProfile, "try")
	if got := decode[map[string]string](t, out)["mount"]; got != "permission denied" {
		t.Errorf("mount gives %q", got)
	}
	if !slices.Contains(state.Enforced, "apparmor="+lsm.DefaultProfile) {
		t.Errorf("in force are %v", state.Enforced)
	}
	r := n.request("name", "files", "/proc/self/attr/current")
	r.Spec.Process.ApparmorProfile = lsm.DefaultProfile
	_, out = n.complete(r)
	if got := decode[map[string]string](t, out)["/proc/self/attr/current"]; !strings.HasPrefix(got, lsm.DefaultProfile+" (enforce)") {
		t.Errorf("the process is confined by %q", got)
	}
	r = n.request("missing", "look")
	r.Spec.Process.ApparmorProfile = "nobody-loaded-this"
	if _, err := n.Create(t.Context(), r); err == nil || !strings.Contains(err.Error(), "confine by the AppArmor profile nobody-loaded-this") {
		t.Errorf("a profile that is not there: %v", err)
	}
}
