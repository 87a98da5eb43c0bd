package filetree

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tree makes files in a new directory: "d/" is a directory, "l -> to" a link, "f=text" a file.
func tree(t testing.TB, entries ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, e := range entries {
		var err error
		if name, to, ok := strings.Cut(e, " -> "); ok {
			err = os.Symlink(to, filepath.Join(dir, name))
		} else if name, text, ok := strings.Cut(e, "="); ok {
			err = errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755),
				os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
		} else {
			err = os.MkdirAll(filepath.Join(dir, e), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// list shows a tree as tree takes it, sorted.
func list(t testing.TB, dir string) []string {
	t.Helper()
	out := []string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name := strings.TrimPrefix(path, dir+"/")
		switch {
		case e.IsDir():
			out = append(out, name+"/")
		case e.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			out = append(out, name+" -> "+to)
			return err
		default:
			text, err := os.ReadFile(path)
			out = append(out, name+"="+string(text))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// quiet is for warnings that a test does not look at.
func quiet(string) {}

// pack gives the stream of what is at a path.
func pack(t testing.TB, path string, follow bool) ([]byte, error) {
	t.Helper()
	var out bytes.Buffer
	p := NewPacker(&out, quiet)
	err := PackPath(p, path, follow)
	return out.Bytes(), errors.Join(err, p.Close())
}

func unpack(path string, stream []byte, o Options) error {
	d, err := Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if o.Warn == nil {
		o.Warn = quiet
	}
	_, err = Unpack(bytes.NewReader(stream), d, o)
	return err
}

func TestCopy_FollowsDockersRules(t *testing.T) {
	source := []string{"d/f=one", "d/e/", "file=new", "link -> d"}
	for _, tt := range []struct {
		from, to string
		follow   bool
		there    []string
		want     []string
		err      string
	}{
		{from: "file", to: "x", want: []string{"x=new"}},
		{from: "file", to: "x/", err: "there is no directory"},
		{from: "file", to: "no/x", err: "no such file"},
		{from: "file", to: "x", there: []string{"x=old"}, want: []string{"x=new"}},
		{from: "file", to: "x/", there: []string{"x=old"}, err: "not a directory"},
		{from: "file", to: "x", there: []string{"x/"}, want: []string{"x/", "x/file=new"}},
		{from: "file", to: "x/", there: []string{"x/"}, want: []string{"x/", "x/file=new"}},
		{from: "file", to: ".", there: []string{"file/"}, err: "can't take the place of the directory"},
		{from: "d", to: "x", want: []string{"x/", "x/e/", "x/f=one"}},
		{from: "d", to: "x/", want: []string{"x/", "x/e/", "x/f=one"}},
		{from: "d/.", to: "x", want: []string{"x/", "x/e/", "x/f=one"}},
		{from: "d", to: "x", there: []string{"x=old"}, err: "can't be copied onto"},
		{from: "d", to: "x", there: []string{"x/"}, want: []string{"x/", "x/d/", "x/d/e/", "x/d/f=one"}},
		{from: "d/.", to: "x", there: []string{"x/f=old"}, want: []string{"x/", "x/e/", "x/f=one"}},
		{from: "d", to: ".", there: []string{"d/f=old", "d/g=old"}, want: []string{"d/", "d/e/", "d/f=one", "d/g=old"}},
		{from: "d", to: ".", there: []string{"d=old"}, err: "can't take the place of"},
		{from: "link", to: "x", want: []string{"x -> d"}},
		{from: "link", to: "x", follow: true, want: []string{"x/", "x/e/", "x/f=one"}},
		{from: "link/", to: "x", want: []string{"x/", "x/e/", "x/f=one"}},
		// A link at the destination may be what an earlier copy brought.
		{from: "file", to: "x", there: []string{"y=old", "x -> y"}, want: []string{"x=new", "y=old"}},
		{from: "file", to: "x", there: []string{"y/", "x -> y"}, err: `is a link to a directory: write`},
		{from: "file", to: "x/", there: []string{"y/", "x -> y"}, want: []string{"x -> y", "y/", "y/file=new"}},
		{from: "d", to: ".", there: []string{"y/", "d -> y"}, err: "can't take the place of"},
	} {
		t.Run(fmt.Sprintf("%s to %s of %v", tt.from, tt.to, tt.there), func(t *testing.T) {
			stream, err := pack(t, tree(t, source...)+"/"+tt.from, tt.follow)
			if err != nil {
				t.Fatal(err)
			}
			dir := tree(t, tt.there...)
			before := list(t, dir)
			err = unpack(dir+"/"+tt.to, stream, Options{})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				tt.want = before
			} else if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, list(t, dir)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestCopy_KeepsModesTimesAndLinks(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<17) // 2 MiB, more than is read at once
	dir := tree(t, "s/closed/f=x", "s/big="+big, "s/l -> ../../etc", "s/run=y")
	when := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	if err := errors.Join(os.Link(dir+"/s/big", dir+"/s/same"), os.Chmod(dir+"/s/run", 0o755|fs.ModeSetuid),
		os.Chmod(dir+"/s/closed", 0o555|fs.ModeSticky),
		syscall.Mkfifo(dir+"/s/fifo", 0o600), os.Chtimes(dir+"/s/closed/f", when, when), os.Chtimes(dir+"/s/closed", when, when)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(dir+"/s/closed", 0o755) })
	var out bytes.Buffer
	var warned []string
	p := NewPacker(&out, func(text string) { warned = append(warned, text) })
	if err := errors.Join(PackPath(p, dir+"/s", false), p.Close()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{`"s/fifo" is left out: it is a FIFO`}, warned); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	if p.Counts != (Counts{Entries: 7, Bytes: 2<<20 + 2}) {
		t.Errorf("%+v", p.Counts)
	}
	for _, setID := range []bool{false, true} {
		to := t.TempDir()
		if err := unpack(to+"/x", out.Bytes(), Options{SetID: setID}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(to+"/x/closed", 0o755) })
		for name, want := range map[string]fs.FileMode{"closed": 0o555 | fs.ModeDir | fs.ModeSticky, "closed/f": 0o644, "run": 0o755} {
			if name == "run" && setID {
				want |= fs.ModeSetuid
			}
			if info, err := os.Lstat(to + "/x/" + name); err != nil || info.Mode() != want || name != "run" && !info.ModTime().Equal(when) {
				t.Errorf("%s: %v %v %v, want %v", name, info.Mode(), info.ModTime(), err, want)
			}
		}
		one, err1 := os.Stat(to + "/x/big")
		two, err2 := os.Stat(to + "/x/same")
		if err := errors.Join(err1, err2); err != nil || !os.SameFile(one, two) || one.Size() != 2<<20 {
			t.Errorf("linked files: %v", err)
		}
		if link, err := os.Readlink(to + "/x/l"); link != "../../etc" || err != nil {
			t.Error(link, err)
		}
	}
}

func TestPack_RefusesWhatIsNoFile(t *testing.T) {
	dir := tree(t, "f=x")
	if err := syscall.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pack(t, dir+"/fifo", false); !errors.Is(err, ErrRule) {
		t.Errorf("a FIFO: %v", err)
	}
	if _, err := pack(t, dir+"/f/", false); err == nil {
		t.Error("a file was taken as a directory")
	}
	if _, err := pack(t, "/proc/self/status", false); err != nil { // which says that it is empty
		t.Error(err)
	}
}

func TestUnpack_Archive(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	write(t, w, tar.Header{Name: "a/b/c", Mode: 0o640}, "one")
	write(t, w, tar.Header{Name: "./d", Mode: 0o640}, "two")
	w.Close()
	b.Write(make([]byte, 8192)) // as tar(1) fills its records
	dir := tree(t, "x/", "f=x")
	if err := unpack(dir+"/x", b.Bytes(), Options{Archive: true}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"f=x", "x/", "x/a/", "x/a/b/", "x/a/b/c=one", "x/d=two"}, list(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, to := range []string{"/f", "/no"} {
		if err := unpack(dir+to, b.Bytes(), Options{Archive: true}); !errors.Is(err, ErrRule) {
			t.Errorf("%s: %v", to, err)
		}
	}
}

func write(t testing.TB, w *tar.Writer, h tar.Header, text string) {
	t.Helper()
	if h.Typeflag == 0 {
		h.Typeflag = tar.TypeReg
	}
	h.Size = int64(len(text))
	if err := w.WriteHeader(&h); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}
