package launch

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// link puts a symbolic link into the image.
func (b *bench) link(to, name string) {
	b.t.Helper()
	name = filepath.Join(b.layer, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.Symlink(to, name); err != nil {
		b.t.Fatal(err)
	}
}

// TestCreate_KernelMountPointsAreNeverLinks holds that an image can't put /proc, /dev or /sys elsewhere by a link, or
// make a mask miss (CVE-2025-31133, CVE-2026-41579).
func TestCreate_KernelMountPointsAreNeverLinks(t *testing.T) {
	for _, name := range []string{"proc", "dev", "sys"} {
		for _, to := range []string{"/etc", "other", "/"} {
			t.Run(name+" to "+filepath.Base(to), func(t *testing.T) {
				b := newBench(t)
				b.link(to, name)
				if err := os.MkdirAll(filepath.Join(b.layer, "other"), 0o755); err != nil {
					t.Fatal(err)
				}
				var failed *StepError
				if _, err := b.create(nil); !errors.As(err, &failed) || failed.Step != "mount /"+name || failed.Errno != unix.ELOOP {
					t.Errorf("Create: %v, want too many links at /%s", err, name)
				}
			})
		}
	}
}

// TestCreate_MountTargetsStayInTheRoot holds that links in an image lead mounts to places in the image at most.
func TestCreate_MountTargetsStayInTheRoot(t *testing.T) {
	host := t.TempDir() // what the links point to, if they were followed on the host
	source := t.TempDir()
	if err := os.WriteFile(source+"/file", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, to, link, target string
	}{
		{"absolute", host, "run", "/run/a"},
		{"upwards", "../../../../../../.." + host, "run", "/run/b"},
		{"in the middle", host, "a/b", "/a/b/c/d"},
		{"to the file itself", host + "/made", "etc/hosts", "/etc/hosts"},
	} {
		for _, from := range []string{source, source + "/file"} {
			t.Run(tc.name+" "+filepath.Base(from), func(t *testing.T) {
				b := newBench(t)
				b.link(tc.to, tc.link)
				_, err := b.create(func(s *specs.Spec) {
					s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: from, Destination: tc.target})
				})
				t.Logf("Create: %v", err) // within the root some links dangle: then it is refused
				if left, err := os.ReadDir(host); err != nil || len(left) != 0 {
					t.Errorf("the host has %v, %v", left, err)
				}
			})
		}
	}
}

// TestCreate_LinksWithinTheImageWork holds that the usual links are followed: /var/run is one in most images.
func TestCreate_LinksWithinTheImageWork(t *testing.T) {
	b := newBench(t)
	b.link("/run", "var/run")
	if err := os.MkdirAll(filepath.Join(b.layer, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	source := t.TempDir()
	if err := os.WriteFile(source+"/marker", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p, err := b.create(func(s *specs.Spec) {
		s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: source, Destination: "/var/run/app"})
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(p.Pid()), "root/run/app/marker")); err != nil {
		t.Error(err)
	}
}

// TestCreate_RenamesElsewhereDisturbNobody holds that whoever renames files all the time, anywhere on the machine, can't
// keep containers from being made whose images have links with "..", which the kernel refuses to follow meanwhile.
func TestCreate_RenamesElsewhereDisturbNobody(t *testing.T) {
	source, busy := t.TempDir(), t.TempDir()
	if err := os.WriteFile(busy+"/a", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ended, stop := make(chan error, 1), make(chan struct{})
	go func() {
		for from, to := busy+"/a", busy+"/b"; ; from, to = to, from {
			select {
			case <-stop:
				ended <- nil
				return
			default:
			}
			if err := os.Rename(from, to); err != nil {
				ended <- err
				return
			}
		}
	}()
	for i := range 20 {
		t.Run(strconv.Itoa(i), func(t *testing.T) {
			b := newBench(t)
			b.link(strings.Repeat("../", 40)+"run", "var/run")
			if err := os.MkdirAll(filepath.Join(b.layer, "run"), 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := b.create(func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Type: "bind", Source: source, Destination: "/var/run/app"})
			}); err != nil {
				t.Error(err)
			}
		})
	}
	close(stop)
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestCreate_LeakedDescriptorsStayOutside holds that a descriptor of the host's root which something in the runtime's
// process forgot to mark close-on-exec reaches no container (CVE-2024-21626).
func TestCreate_LeakedDescriptorsStayOutside(t *testing.T) {
	leak, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	const listed = "/proc/self/fd"
	out, err := exec.Command("ls", listed).Output() // the control
	if err != nil || !slices.Contains(strings.Fields(string(out)), strconv.Itoa(leak)) {
		t.Fatalf("a usual child does not have descriptor %d: %q, %v", leak, out, err)
	}
	p, err := newBench(t).create(nil)
	if err != nil {
		t.Fatal(err)
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.Pid()))
	if err != nil || len(fds) == 0 {
		t.Fatal(err)
	}
	host, err := os.Stat("/")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if st, err := os.Stat(fd); err == nil && os.SameFile(host, st) {
			t.Errorf("the container has the host's root: %s", fd)
		}
	}
}

// TestCreate_WorkingDirectoryIsInTheRoot holds against CVE-2024-21626: no directory of the host can be the working
// directory.
func TestCreate_WorkingDirectoryIsInTheRoot(t *testing.T) {
	all := []string{"/proc/1/root", "/proc/self/cwd", "/proc/thread-self/root"}
	for fd := range 20 {
		all = append(all, fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	for _, cwd := range all {
		t.Run(cwd, func(t *testing.T) {
			b := newBench(t)
			_, err := b.create(func(s *specs.Spec) { s.Process.Cwd = cwd })
			if !errors.Is(err, unix.ELOOP) && !errors.Is(err, unix.ENOENT) { // not open
				t.Errorf("Create: %v, want too many links", err)
			}
		})
	}
	b := newBench(t)
	host := t.TempDir()
	b.link(host, "work")
	p, err := b.create(func(s *specs.Spec) { s.Process.Cwd = "/work" })
	if err == nil {
		p.Abort()
		t.Error("a working directory that is a link out of the root was taken")
	}
}
