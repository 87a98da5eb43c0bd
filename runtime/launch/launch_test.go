package launch

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/overlay"
	"github.com/skep-io/skep/runtime/spec"
)

// forkerArgument makes the test program a forker.
const forkerArgument = "forker"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == forkerArgument {
		if err := ServeForks(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// bench is what a launch needs, made for one test.
type bench struct {
	t        *testing.T
	launcher *Launcher
	tree     *cgroup.Tree
	layer    string // without any program
}

func newBench(t *testing.T) *bench {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to launch containers")
	}
	driver, err := overlay.Probe(t.TempDir())
	if err != nil {
		t.Skipf("needs overlay mounts: %v", err)
	}
	forker, err := NewForker([]string{"/proc/self/exe", forkerArgument}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(forker.Close)
	l, err := New(driver, forker)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	tree, err := cgroup.Open(fmt.Sprintf("skep-launch-test-%d", os.Getpid()))
	if err != nil {
		t.Skipf("needs control groups: %v", err)
	}
	t.Cleanup(func() {
		if err := tree.Remove(); err != nil {
			t.Error(err)
		}
	})
	return &bench{t: t, launcher: l, tree: tree, layer: t.TempDir()}
}

// create makes a container from the default configuration, changed by edit.
func (b *bench) create(edit func(*specs.Spec)) (*Process, error) {
	b.t.Helper()
	s, err := spec.Default()
	if err != nil {
		b.t.Fatal(err)
	}
	s.Process.Args = []string{"/none"}
	if edit != nil {
		edit(s)
	}
	plan, err := spec.Compile(s, runtime.GOARCH)
	if err != nil {
		b.t.Fatal(err)
	}
	group, err := b.tree.Create(strings.ReplaceAll(filepath.Base(b.t.Name()), "/", "-"), plan.Limits)
	if err != nil {
		b.t.Fatal(err)
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer null.Close()
	p, err := b.launcher.Create(b.t.Context(), Job{
		Plan: plan, Root: overlay.Layers{Lower: []string{b.layer}}, Group: group, Stdio: [3]*os.File{null, null, null},
	})
	b.t.Cleanup(func() {
		if p != nil {
			p.Abort()
		}
		if err := group.Remove(b.t.Context()); err != nil && b.t.Context().Err() == nil {
			b.t.Error(err)
		}
	})
	return p, err
}

func TestCreate_WaitsBeforeTheProgram(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := newBench(t).create(func(s *specs.Spec) { // what the parent opens for mounts is not left open either
		s.Mounts = append(s.Mounts,
			specs.Mount{Type: "bind", Source: filepath.Dir(file), Destination: "/data"},
			specs.Mount{Type: "bind", Source: file, Destination: "/file"})
	})
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.Pid()))
	own, _ := os.Readlink("/proc/self/exe")
	if err != nil || exe != own {
		t.Errorf("the waiting process runs %q, %v", exe, err)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	var open []string
	for _, fd := range fds {
		to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", p.Pid(), fd.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(to, "socket:") {
			open = append(open, to)
		}
	}
	slices.Sort(open)
	want := []string{
		"/", "/dev/full", "/dev/null", "/dev/null", "/dev/null", "/dev/null", "/dev/random", "/dev/tty", "/dev/urandom", "/dev/zero",
	}
	if diff := cmp.Diff(want, open); diff != "" || len(fds) != len(want)+1 { // I1
		t.Errorf("%d descriptors (-want +got):\n%s", len(fds), diff)
	}
}

// TestCreate_SaysWhyTheChildFailedEarly: it may end before the parent has given it anything.
func TestCreate_SaysWhyTheChildFailedEarly(t *testing.T) {
	b := newBench(t)
	s, err := spec.Default()
	if err != nil {
		t.Fatal(err)
	}
	s.Process.Args = []string{"/none"}
	plan, err := spec.Compile(s, runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for range 20 {
		group, err := b.tree.Create("gone", plan.Limits)
		if err != nil {
			t.Fatal(err)
		}
		if group.FD() >= 0 {
			if err := group.Remove(t.Context()); err != nil {
				t.Error(err)
			}
			t.Skip("needs control groups of version 1, which a process enters itself")
		}
		job := Job{Plan: plan, Root: overlay.Layers{Lower: []string{b.layer}}, Group: group, Stdio: [3]*os.File{null, null, null}}
		gathered, err := b.launcher.gather(job, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := group.Remove(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err = b.launcher.launch(t.Context(), job, gathered)
		if step := (*StepError)(nil); !errors.As(err, &step) || step.Step != "enter the control group" || step.Errno != unix.ENODEV {
			t.Fatalf("a child whose control group is gone: %v", err)
		}
	}
}

// TestCreate_NetworkIsTheContainers: whose the files below /proc/net are is settled when the network is made.
func TestCreate_NetworkIsTheContainers(t *testing.T) {
	b := newBench(t)
	for i := range 20 {
		t.Run(fmt.Sprint("network", i), func(t *testing.T) {
			one := *b
			one.t = t
			p, err := one.create(nil)
			if err != nil {
				t.Fatal(err)
			}
			var got, want unix.Stat_t
			if err := errors.Join(unix.Stat(fmt.Sprintf("/proc/%d/net/dev", p.Pid()), &got), unix.Stat(fmt.Sprintf("/proc/%d/root", p.Pid()), &want)); err != nil {
				t.Fatal(err)
			}
			if got.Uid != want.Uid || got.Uid == 0 {
				t.Errorf("/proc/net/dev is %d's, the root of the container %d's", got.Uid, want.Uid)
			}
		})
	}
}

// TestTable_IsBounded: whoever builds a table that is too long is told so, and finds the steps that he goes on with.
func TestTable_IsBounded(t *testing.T) {
	for before := maxSteps - 5; before < maxSteps+2; before++ {
		tb := newTable(nil)
		for range before {
			tb.call("fill", unix.SYS_GETPID)
		}
		tb.call("jump", callJump)
		at := tb.here()
		for range 3 {
			tb.call("over", unix.SYS_GETPID)
		}
		tb.land(at)
		tb.call("end", unix.SYS_GETPID)
		if err := tb.sealed(); (err == nil) != (before+5 <= maxSteps) {
			t.Errorf("%d steps: %v", before+5, err)
		}
		tb.release()
	}
}

// TestCreate_IntoAUnifiedGroup launches into a v2 group, which also exists beside v1, without controllers.
func TestCreate_IntoAUnifiedGroup(t *testing.T) {
	b := newBench(t)
	root := "/sys/fs/cgroup/unified"
	var fs unix.Statfs_t
	if unix.Statfs(root, &fs) != nil {
		root = "/sys/fs/cgroup"
	}
	if err := unix.Statfs(root, &fs); err != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Skipf("needs a cgroup2 mount at %s: %v", root, err)
	}
	dir := filepath.Join(root, filepath.Base(t.Name()))
	var err error
	if b.tree, err = cgroup.OpenUnified(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	p, err := b.create(func(s *specs.Spec) { s.Linux.Resources = nil })
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.Pid()))
	if err != nil || !strings.Contains(string(text), "0::/"+filepath.Base(dir)+"/"+filepath.Base(t.Name())+"\n") {
		t.Errorf("it is in %q, %v", text, err)
	}
	group, err := b.tree.Group(filepath.Base(t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	if err := group.KillAll(); err != nil {
		t.Fatal(err)
	}
	if exit, err := p.Wait(); err != nil || exit.Signal != unix.SIGKILL {
		t.Errorf("Wait: %+v, %v", exit, err)
	}
}

func TestStart_TellsWhyTheProgramCantRun(t *testing.T) {
	p, err := newBench(t).create(nil)
	if err != nil {
		t.Fatal(err)
	}
	err = p.Start(t.Context())
	if !errors.Is(err, unix.ENOENT) || err.Error() != "exec /none: no such file or directory" {
		t.Errorf("Start: %v", err)
	}
	exit, err := p.Wait()
	if err != nil || exit.Code != exitFailed {
		t.Errorf("Wait: %+v, %v", exit, err)
	}
}

func TestCreate_TheChildEndsWithItsParent(t *testing.T) { // I5
	p, err := newBench(t).create(nil)
	if err != nil {
		t.Fatal(err)
	}
	p.closeControl()
	exit, err := p.Wait()
	if err != nil || exit.Code != exitFailed {
		t.Errorf("Wait: %+v, %v", exit, err)
	}
}
