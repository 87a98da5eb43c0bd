package launch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/spec"
)

// bundleSpec is a container without a user namespace, in the given network.
func bundleSpec(network string) *specs.Spec {
	all := []string{"CAP_MKNOD"}
	return &specs.Spec{
		Process: &specs.Process{
			Args: []string{"/none"}, Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "mode=755"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace},
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.NetworkNamespace, Path: network},
			},
			MaskedPaths:   []string{"/proc/keys", "/proc/fs", "/proc/none"},
			ReadonlyPaths: []string{"/proc/sys"},
			Devices:       []specs.LinuxDevice{{Path: "/dev/deep/er", Type: "c", Major: 1, Minor: 3, UID: new(uint32)}},
		},
	}
}

// bundle creates a container from a directory.
func (b *bench) bundle(s *specs.Spec, change func(*Job)) (*Process, error) {
	b.t.Helper()
	plan, err := spec.CompileBundle(s, runtime.GOARCH)
	if err != nil {
		b.t.Fatal(err)
	}
	group, err := b.tree.Create(filepath.Base(b.t.Name()), plan.Limits)
	if err != nil {
		b.t.Fatal(err)
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer null.Close()
	job := Job{Plan: plan, Rootfs: b.layer, Group: group, Stdio: [3]*os.File{null, null, null}}
	if change != nil {
		change(&job)
	}
	p, err := b.launcher.Create(b.t.Context(), job)
	b.t.Cleanup(func() {
		if p != nil {
			p.Abort()
		}
		if err := group.Remove(context.Background()); err != nil {
			b.t.Error(err)
		}
	})
	return p, err
}

func namespace(t *testing.T, pid, kind string) string {
	t.Helper()
	to, err := os.Readlink("/proc/" + pid + "/ns/" + kind)
	if err != nil {
		t.Fatal(err)
	}
	return to
}

func TestBundle_HasTheNamespacesThatItAsksFor(t *testing.T) {
	b := newBench(t)
	other, err := b.create(nil) // whose network it joins
	if err != nil {
		t.Fatal(err)
	}
	t.Run("joined", func(t *testing.T) {
		b := &bench{t: t, launcher: b.launcher, tree: b.tree, layer: b.layer}
		p, err := b.bundle(bundleSpec(fmt.Sprintf("/proc/%d/ns/net", other.Pid())), nil)
		if err != nil {
			t.Fatal(err)
		}
		own, its := fmt.Sprint(p.Pid()), fmt.Sprint(other.Pid())
		for kind, want := range map[string]string{"net": its, "user": "self", "uts": "self", "cgroup": "self"} {
			if got := namespace(t, own, kind); got != namespace(t, want, kind) {
				t.Errorf("%s namespace %s, want that of %s", kind, got, want)
			}
		}
		for _, kind := range []string{"mnt", "pid", "ipc"} {
			if got := namespace(t, own, kind); got == namespace(t, "self", kind) || got == namespace(t, its, kind) {
				t.Errorf("%s namespace %s is another's", kind, got)
			}
		}
		root := fmt.Sprintf("/proc/%d/root", p.Pid())
		for _, d := range []string{"null", "tty", "deep/er"} {
			var st unix.Stat_t
			if err := unix.Lstat(root+"/dev/"+d, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Mode&0o777 != 0o666 {
				t.Errorf("/dev/%s: mode %o, %v", d, st.Mode, err)
			}
		}
		mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.Pid()))
		if err != nil || strings.Count(string(mounts), "\n") != 7 || !strings.Contains(string(mounts), " /dev ro,relatime - tmpfs") {
			t.Errorf("mounts: %v\n%s", err, mounts)
		}
	})
	t.Run("not one", func(t *testing.T) {
		b := &bench{t: t, launcher: b.launcher, tree: b.tree, layer: b.layer}
		_, err := b.bundle(bundleSpec("/proc/self/ns/uts"), nil)
		if !errors.Is(err, unix.EINVAL) || !strings.HasPrefix(err.Error(), "join namespace /proc/self/ns/uts: ") {
			t.Errorf("a uts namespace as the network: %v", err)
		}
	})
}

func TestBundle_HooksSeeItsMountsBeforeTheHostGoes(t *testing.T) {
	b := newBench(t)
	called := false
	p, err := b.bundle(bundleSpec("/proc/self/ns/net"), func(j *Job) {
		j.Mounted = func(_ context.Context, pid int) error {
			called = true
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
			if !strings.Contains(string(text), " "+b.layer+"/proc ") {
				return fmt.Errorf("no %s/proc, %w, in\n%s", b.layer, err, text)
			}
			return nil
		}
	})
	if err != nil || !called {
		t.Fatalf("called: %v, %v", called, err)
	}
	p.Abort()
	failure := errors.New("hook says no")
	b = &bench{t: t, launcher: b.launcher, tree: b.tree, layer: b.layer}
	t.Run("failed", func(t *testing.T) {
		b.t = t
		_, err := b.bundle(bundleSpec("/proc/self/ns/net"), func(j *Job) {
			j.Mounted = func(context.Context, int) error { return failure }
		})
		if !errors.Is(err, failure) {
			t.Errorf("Create: %v", err)
		}
	})
}

func TestBundle_IsStartedByAnother(t *testing.T) {
	b := newBench(t)
	path := filepath.Join(t.TempDir(), "start")
	listener, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := listener.File()
	if err != nil {
		t.Fatal(err)
	}
	p, err := b.bundle(bundleSpec("/proc/self/ns/net"), func(j *Job) { j.Starter = f })
	listener.SetUnlinkOnClose(false)
	listener.Close()
	f.Close()
	if err != nil {
		t.Fatal(err)
	}
	steps := p.Steps()
	p.closeControl() // as when the process that created it is gone
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := StartBy(t.Context(), c, steps); err == nil || err.Error() != "exec /none: no such file or directory" {
		t.Errorf("StartBy: %v", err)
	}
	if exit, err := p.Wait(); err != nil || exit.Code != exitFailed {
		t.Errorf("Wait: %+v, %v", exit, err)
	}
}

func TestBundle_GetsATerminal(t *testing.T) {
	b := newBench(t)
	s := bundleSpec("/proc/self/ns/net")
	s.Process.Terminal, s.Process.ConsoleSize = true, &specs.Box{Height: 7, Width: 9}
	var size *unix.Winsize
	p, err := b.bundle(s, func(j *Job) {
		j.Console = func(f *os.File) (err error) {
			t.Cleanup(func() { f.Close() }) // not before: that hangs up
			size, err = unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
			return err
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if size == nil || size.Row != 7 || size.Col != 9 {
		t.Errorf("size %+v", size)
	}
	for fd := range 3 {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", p.Pid(), fd)); err != nil || to != "/dev/pts/0" {
			t.Errorf("descriptor %d is %q, %v", fd, to, err)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.Pid()))
	if err != nil || !strings.Contains(string(mounts), " /0 /dev/console ") {
		t.Errorf("mounts: %v\n%s", err, mounts)
	}
}
