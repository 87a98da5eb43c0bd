package unpack

import (
	"archive/tar"
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	if code, ok := Child(os.Args); ok {
		unix.Exit(code) // not os.Exit, which makes the race detector sleep for a second
	}
	unix.Umask(0) // as in the child
	goleak.VerifyTestMain(m)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: layers have devices and files of other owners")
	}
}

// scratch returns a directory on a tmpfs of its own, gone after the test.
func scratch(t testing.TB) string {
	t.Helper()
	needRoot(t)
	dir := t.TempDir()
	if err := unix.Mount("skep-test", dir, "tmpfs", 0, "size=2g"); err != nil {
		t.Skipf("needs to mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

func subdir(t testing.TB, dir, name string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// ent is one tar entry: the header, and content for regular files.
type ent struct {
	tar.Header
	content string
}

var epoch = time.Unix(1_000_000_000, 0)

func file(name, content string) ent {
	return ent{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: epoch}, content}
}

func dirEnt(name string, mode int64) ent {
	return ent{tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: mode, ModTime: epoch}, ""}
}

func symlink(name, to string) ent {
	return ent{tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777, ModTime: epoch}, ""}
}

func hardlink(name, to string) ent {
	return ent{tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, ModTime: epoch}, ""}
}

func device(name string, kind byte, major, minor int64) ent {
	return ent{tar.Header{Typeflag: kind, Name: name, Mode: 0o666, Devmajor: major, Devminor: minor, ModTime: epoch}, ""}
}

func (e ent) owned(uid, gid int) ent {
	e.Uid, e.Gid = uid, gid
	return e
}

func (e ent) mode(mode int64) ent {
	e.Mode = mode
	return e
}

func (e ent) xattr(name, value string) ent {
	e.PAXRecords = map[string]string{paxXattr + name: value}
	return e
}

func tarOf(t testing.TB, entries ...ent) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatalf("header %+v: %v", e.Header, err)
		}
		if _, err := w.Write([]byte(e.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// apply applies a tar in this process, without the sandbox: what the code alone
// guarantees is tested with it.
func apply(t testing.TB, dir string, parents []string, data []byte, limits Limits) (Report, error) {
	t.Helper()
	open := func(dir string) int {
		fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	var fds []int
	for _, p := range parents {
		fds = append(fds, open(p))
	}
	root := open(dir)
	report, err := Apply(root, fds, bytes.NewReader(data), limits)
	if err != nil {
		return report, err
	}
	return report, MarkOpaque(root, report.Opaque)
}

func mustApply(t testing.TB, dir string, parents []string, entries ...ent) Report {
	t.Helper()
	report, err := apply(t, dir, parents, tarOf(t, entries...), Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// tree describes everything below dir: one "path" -> "type mode uid:gid rest"
// per entry.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		out[name] = describe(t, path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func describe(t testing.TB, path string) string {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	words := []string{info.Mode().String(), itoa(st.Uid) + ":" + itoa(st.Gid)}
	switch {
	case info.Mode().IsRegular():
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		words = append(words, string(data[:min(len(data), 100)]))
	case info.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(path)
		if err != nil {
			t.Fatal(err)
		}
		words = append(words, "-> "+to)
	case info.Mode()&fs.ModeDevice != 0:
		words = append(words, itoa(unix.Major(st.Rdev))+","+itoa(unix.Minor(st.Rdev)))
	}
	for _, name := range xattrs(t, path) {
		words = append(words, "+"+name)
	}
	return strings.Join(words, " ")
}

func itoa(n uint32) string {
	const digits = "0123456789"
	if n < 10 {
		return digits[n : n+1]
	}
	return itoa(n/10) + digits[n%10:n%10+1]
}

func xattrs(t testing.TB, path string) []string {
	t.Helper()
	buf := make([]byte, 4096)
	n, err := unix.Llistxattr(path, buf)
	if err != nil {
		t.Fatal(err)
	}
	return strings.FieldsFunc(string(buf[:n]), func(r rune) bool { return r == 0 })
}
