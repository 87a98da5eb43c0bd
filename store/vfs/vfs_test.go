package vfs_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skep-io/skep/store/vfs"
)

// contract is what every file system must do.
func contract(t *testing.T, fsys vfs.FS, dir string) {
	t.Helper()
	if err := fsys.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(dir, "a")
	for _, content := range []string{"first", "2"} {
		if err := vfs.WriteFile(fsys, name, 0o600, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := vfs.ReadFile(fsys, name, 100); err != nil || string(got) != content {
			t.Errorf("read %q, %v; want %q", got, err, content)
		}
	}
	if info, err := fsys.Stat(name); err != nil || info.Mode().Perm() != 0o600 || info.Size() != 1 {
		t.Errorf("stat: %v, %v", info, err)
	}
	if info, err := fsys.Stat(filepath.Dir(name)); err != nil || !info.IsDir() {
		t.Errorf("its directory: %v, %v", info, err)
	}
	if _, err := vfs.ReadFile(fsys, name, 0); !errors.Is(err, vfs.ErrTooLarge) {
		t.Errorf("limit: %v", err)
	}
	f, err := fsys.OpenOS(filepath.Join(dir, "b"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("x"), 4095); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if names, err := fsys.ReadDir(dir); err != nil || strings.Join(names, " ") != "a b" {
		t.Errorf("names: %v, %v", names, err)
	}
	if err := fsys.Remove(name); err != nil {
		t.Error(err)
	}
	for what, err := range map[string]error{
		"open":   errOf(fsys.Open(name)),
		"stat":   errOf(fsys.Stat(name)),
		"remove": fsys.Remove(name),
		"rename": fsys.Rename(name, name+"2"),
		"create": errOf(fsys.Create(filepath.Join(dir, "missing", "x"), 0o600)),
	} {
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s of a missing file: %v", what, err)
		}
	}
}

func errOf[T any](_ T, err error) error { return err }

func TestContract(t *testing.T) {
	t.Run("os", func(t *testing.T) { contract(t, vfs.OS{}, t.TempDir()) })
	t.Run("mem", func(t *testing.T) {
		m := vfs.NewMem()
		defer m.Close()
		contract(t, m, "/data")
	})
	t.Run("inject", func(t *testing.T) {
		contract(t, vfs.Inject(vfs.OS{}, func(vfs.Op) error { return nil }), t.TempDir())
	})
}

// A crash at any point of WriteFile leaves the old content or the new, and after it returned the new.
func TestWriteFile_IsAtomicAtEveryCrashPoint(t *testing.T) {
	m := vfs.NewMem()
	if err := m.MkdirAll("/d", 0o700); err != nil {
		t.Fatal(err)
	}
	content := func(i int) string { return strings.Repeat(fmt.Sprint(i), 3000) }
	acknowledged := -1
	points := 0
	m.OnWrite(func() {
		for seed := range uint64(20) {
			random := rand.New(rand.NewPCG(seed, uint64(points)))
			if seed == 0 {
				random = nil
			}
			after, err := m.Crash(random)
			if err != nil {
				t.Fatal(err)
			}
			got, err := vfs.ReadFile(after, "/d/f", 1<<20)
			if acknowledged < 0 && errors.Is(err, os.ErrNotExist) {
				continue
			}
			if s := string(got); err != nil || s != content(acknowledged) && s != content(acknowledged+1) {
				t.Fatalf("point %d seed %d: %d bytes, %v", points, seed, len(got), err)
			}
			points++
		}
	})
	for i := range 5 {
		if err := vfs.WriteFile(m, "/d/f", 0o600, []byte(content(i))); err != nil {
			t.Fatal(err)
		}
		acknowledged = i
	}
	if points < 100 {
		t.Errorf("only %d crash points", points)
	}
}

func TestInject_FailsEachOperation(t *testing.T) {
	broken := errors.New("broken")
	for _, kind := range []string{"Create", "Write", "Sync", "Close", "Rename", "SyncDir"} {
		m := vfs.NewMem()
		if err := m.MkdirAll("/d", 0o700); err != nil {
			t.Fatal(err)
		}
		if err := vfs.WriteFile(m, "/d/f", 0o600, []byte("old")); err != nil {
			t.Fatal(err)
		}
		fsys := vfs.Inject(m, func(op vfs.Op) error {
			if op.Kind == kind {
				return broken
			}
			return nil
		})
		if err := vfs.WriteFile(fsys, "/d/f", 0o600, []byte("new")); !errors.Is(err, broken) {
			t.Errorf("%s: got %v", kind, err)
		}
		if kind == "SyncDir" { // the only one after the new content is in place
			continue
		}
		if got, err := vfs.ReadFile(m, "/d/f", 10); err != nil || string(got) != "old" {
			t.Errorf("%s: left %q, %v", kind, got, err)
		}
	}
	fsys := vfs.Inject(vfs.NewMem(), func(vfs.Op) error { return broken })
	for what, err := range map[string]error{
		"Open": errOf(fsys.Open("/f")), "OpenOS": errOf(fsys.OpenOS("/f", 0, 0)), "Remove": fsys.Remove("/f"),
		"MkdirAll": fsys.MkdirAll("/f", 0), "ReadDir": errOf(fsys.ReadDir("/")), "Stat": errOf(fsys.Stat("/f")),
	} {
		if !errors.Is(err, broken) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestMem_CrashLosesUnsyncedNamesAndBytes(t *testing.T) {
	m := vfs.NewMem()
	defer m.Close()
	if err := m.MkdirAll("/d", 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := m.Create("/d/f", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(f, "one")
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	check := func(want string) {
		t.Helper()
		after, err := m.Crash(nil)
		if err != nil {
			t.Fatal(err)
		}
		defer after.Close()
		if got, _ := vfs.ReadFile(after, "/d/f", 10); string(got) != want {
			t.Errorf("after the crash: %q, want %q", got, want)
		}
	}
	check("") // the name was not synced
	if err := m.SyncDir("/d"); err != nil {
		t.Fatal(err)
	}
	io.WriteString(f, "two")
	check("one")
	if found, err := m.Contains([]byte("onetwo")); err != nil || !found {
		t.Errorf("contains: %v, %v", found, err)
	}
}
