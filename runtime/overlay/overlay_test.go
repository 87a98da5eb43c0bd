package overlay

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// userns gives a user namespace that maps 0 to base.
func userns(t *testing.T, base int) *os.File {
	t.Helper()
	c := exec.Command("sleep", "60")
	ids := []syscall.SysProcIDMap{{HostID: base, Size: 65536}}
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	if err := c.Start(); err != nil {
		t.Skipf("needs user namespaces: %v", err)
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/ns/user", c.Process.Pid))
	_ = c.Process.Kill()
	_ = c.Wait()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func drivers(t *testing.T) map[string]*Driver {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir := t.TempDir()
	probed, err := Probe(dir)
	if err != nil {
		t.Skipf("needs overlay mounts: %v", err)
	}
	all := map[string]*Driver{"by path": {dir: dir, byPath: true}}
	if !probed.byPath {
		all["by descriptor"] = probed
	}
	return all
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func mount(t *testing.T, d *Driver, l Layers) string {
	t.Helper()
	fd, err := d.Mount(l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return procPath(fd)
}

func TestMount_MapsIDsAndKeepsLayersAsTheyAre(t *testing.T) {
	const base = 300000
	for name, d := range drivers(t) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir+"/top/a", "top")
			write(t, dir+"/bottom/a", "bottom")
			write(t, dir+"/bottom/b", "b")
			upper, work := dir+"/upper", dir+"/work"
			for _, p := range []string{upper, work} {
				if err := os.Mkdir(p, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			root := mount(t, d, Layers{
				Lower: []string{dir + "/top", dir + "/bottom"}, Upper: upper, Work: work,
				UserNS: int(userns(t, base).Fd()), RootUID: base, RootGID: base,
			})
			for file, want := range map[string]string{"a": "top", "b": "b"} {
				if got, err := os.ReadFile(root + "/" + file); err != nil || string(got) != want {
					t.Errorf("%s is %q, %v; want %q", file, got, err, want)
				}
				st, err := os.Stat(root + "/" + file)
				if err != nil {
					t.Fatal(err)
				}
				if uid := st.Sys().(*syscall.Stat_t).Uid; uid != base {
					t.Errorf("%s belongs to %d, want %d", file, uid, base)
				}
			}
			if st, err := os.Stat(root); err != nil || st.Mode().Perm() != rootMode || st.Sys().(*syscall.Stat_t).Uid != base {
				t.Errorf("root directory: %v, %v", st, err)
			}
			write(t, root+"/b", "changed")
			if got, _ := os.ReadFile(upper + "/b"); string(got) != "changed" {
				t.Errorf("upper has %q", got)
			}
			if got, _ := os.ReadFile(dir + "/bottom/b"); string(got) != "b" {
				t.Errorf("a layer was changed: %q", got)
			}
			if err := unix.Mknod(root+"/null", unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err == nil {
				if f, err := os.Open(root + "/null"); !errors.Is(err, unix.EACCES) {
					f.Close()
					t.Errorf("opened a device node: %v", err) // I3
				}
			}
		})
	}
}

func TestMount_WithoutWritableLayerChangesStayInMemory(t *testing.T) {
	for name, d := range drivers(t) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			write(t, dir+"/a", "a")
			root := mount(t, d, Layers{Lower: []string{dir}, UserNS: -1})
			write(t, root+"/x/y", "new")
			if _, err := os.Stat(dir + "/x"); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the layer was changed: %v", err)
			}
			if rest, err := os.ReadDir(d.dir); err != nil || len(rest) != 0 {
				t.Errorf("left behind: %v, %v", rest, err) // I4
			}
		})
	}
}

func TestProbe_TakesDownWhatAKilledProcessLeft(t *testing.T) {
	drivers(t) // skips where it can't be tested
	dir, layer := t.TempDir(), t.TempDir()
	write(t, layer+"/a", "a")
	s := &stack{}
	t.Cleanup(s.close)
	if err := s.addLower(layer, -1); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/m1", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := attach(s.lower[0], dir+"/m1/0"); err != nil {
		t.Fatal(err)
	}
	if _, err := Probe(dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if _, err := os.Stat(layer + "/a"); err != nil {
		t.Error(err)
	}
}

func TestMount_Refuses(t *testing.T) {
	for name, d := range drivers(t) {
		t.Run(name, func(t *testing.T) {
			for _, l := range []Layers{{}, {Lower: []string{"/"}, Upper: "/x"}, {Lower: make([]string, maxLayers+1)}} {
				if _, err := d.Mount(l); !errors.Is(err, ErrLayers) {
					t.Errorf("%d layers, upper %q: %v, want ErrLayers", len(l.Lower), l.Upper, err)
				}
			}
			if _, err := d.Mount(Layers{Lower: []string{"/nonexistent"}, UserNS: -1}); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("missing layer: %v", err)
			}
		})
	}
}
