package secret

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// vaultOf opens the vault of a node with a key.
func vaultOf(t *testing.T, dir, node, key string) *Vault {
	t.Helper()
	v, err := OpenVault(dir, node, func() ([]byte, error) { return []byte(key), nil })
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// keep puts a value into a holder, and keeps it for a task.
func keep(t *testing.T, v *Vault, task string) *Holder {
	t.Helper()
	h := &Holder{}
	h.Put("x1", 3, []byte(canary))
	h.Put("x2@1", 1, []byte("second"))
	if err := v.Keep(task, []string{"x1", "x2@1", "x1"}, h); err != nil {
		t.Fatal(err)
	}
	return h
}

func reveal(h *Holder, id string) string {
	v, _ := h.Get(id)
	return string(v.Reveal())
}

func TestVault_KeepsSecretsForTheNextRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "offline")
	keep(t, vaultOf(t, dir, "n1", "key"), "t1")
	data, err := os.ReadFile(filepath.Join(dir, "t1"))
	if err != nil || bytes.Contains(data, []byte("canary")) {
		t.Errorf("S1: the file is %q, %v", data, err)
	}
	info, err := os.Stat(filepath.Join(dir, "t1"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info, err)
	}
	again, h := vaultOf(t, dir, "n1", "key"), &Holder{}
	if err := again.Load("t1", h); err != nil || again.Len() != 1 {
		t.Fatalf("%d tasks, %v", again.Len(), err)
	}
	v, _ := h.Get("x1")
	if reveal(h, "x1") != canary || v.Version() != 3 || reveal(h, "x2@1") != "second" || h.Len() != 2 {
		t.Errorf("got %q of version %d, and %q", reveal(h, "x1"), v.Version(), reveal(h, "x2@1"))
	}
}

func TestVault_OpensNothingThatIsNotItsOwn(t *testing.T) { // S4
	seal := func(t *testing.T) (dir, path string) {
		dir = t.TempDir()
		keep(t, vaultOf(t, dir, "n1", "key"), "t1")
		return dir, filepath.Join(dir, "t1")
	}
	refused := func(t *testing.T, v *Vault, task string) {
		t.Helper()
		h := &Holder{}
		if err := v.Load(task, h); !errors.Is(err, ErrSealed) || !strings.Contains(err.Error(), filepath.Join(v.dir, task)) || h.Len() != 0 {
			t.Errorf("%d secrets, %v", h.Len(), err)
		}
	}
	t.Run("another node", func(t *testing.T) {
		dir, _ := seal(t)
		refused(t, vaultOf(t, dir, "n2", "key"), "t1")
	})
	t.Run("another key", func(t *testing.T) {
		dir, _ := seal(t)
		refused(t, vaultOf(t, dir, "n1", "another"), "t1")
	})
	t.Run("another task", func(t *testing.T) {
		dir, path := seal(t)
		if err := os.Rename(path, filepath.Join(dir, "t2")); err != nil {
			t.Fatal(err)
		}
		refused(t, vaultOf(t, dir, "n1", "key"), "t2")
	})
	t.Run("any bit flipped, any length", func(t *testing.T) {
		dir, path := seal(t)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		v := vaultOf(t, dir, "n1", "key")
		write := func(b []byte) {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			refused(t, v, "t1")
		}
		for i := range data {
			b := bytes.Clone(data)
			b[i] ^= 1
			write(b)
			write(data[:i])
		}
	})
}

func TestVault_ErasesWhatIsNotWanted(t *testing.T) {
	dir := t.TempDir()
	v := vaultOf(t, dir, "n1", "key")
	keep(t, v, "t1")
	keep(t, v, "t2")
	// What a crash in the midst of a write leaves, and what nobody knows.
	for _, name := range []string{".t1.tmp", ".t3.tmp", "Something"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v = vaultOf(t, dir, "n1", "key")
	if err := v.Sweep(func(task string) bool { return task == "t2" || strings.HasPrefix(task, ".") }); err != nil {
		t.Fatal(err)
	}
	if names := namesIn(t, dir); names != "t2" || v.Len() != 1 {
		t.Errorf("left are %s, of %d tasks", names, v.Len())
	}
	if err := v.Load("t1", &Holder{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an erased file: %v", err)
	}
	if err := v.Clear(); err != nil || namesIn(t, dir) != "" || v.Len() != 0 {
		t.Errorf("after Clear: %s, %v", namesIn(t, dir), err)
	}
}

func namesIn(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// A file is written for a new version and for a new key of the node, and not otherwise.
func TestVault_WritesWhatIsNew(t *testing.T) {
	dir, key := t.TempDir(), "first"
	v, err := OpenVault(dir, "n1", func() ([]byte, error) { return []byte(key), nil })
	if err != nil {
		t.Fatal(err)
	}
	h := keep(t, v, "t1")
	read := func() string {
		data, err := os.ReadFile(filepath.Join(dir, "t1"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	step := func(what string, changes bool) {
		t.Helper()
		before := read()
		if err := v.Keep("t1", []string{"x1", "x2@1"}, h); err != nil {
			t.Fatal(err)
		}
		if (read() != before) != changes {
			t.Errorf("%s: the file changed: %v", what, !changes)
		}
	}
	step("nothing new", false)
	h.Put("x1", 4, []byte("newer"))
	step("a new version", true)
	key = "second"
	step("a new key", true)
	step("nothing new under that", false)
	h.Remove("x2@1")
	h.Put("x1", 5, []byte("newest"))
	step("a secret that is not here", false)

	got := &Holder{}
	if err := vaultOf(t, dir, "n1", "second").Load("t1", got); err != nil || reveal(got, "x1") != "newer" {
		t.Errorf("got %q, %v", reveal(got, "x1"), err)
	}
	// What is newer in memory stays.
	got.Put("x1", 9, []byte("of a manager"))
	if err := v.Load("t1", got); err != nil || reveal(got, "x1") != "of a manager" {
		t.Errorf("got %q, %v", reveal(got, "x1"), err)
	}
}

func TestVault_RefusesATaskThatIsNoName(t *testing.T) {
	v := vaultOf(t, t.TempDir(), "n1", "key")
	for _, id := range []string{"", "../t1", "T1", ".t1", strings.Repeat("a", 65)} {
		if err := errors.Join(v.Keep(id, nil, &Holder{})); err == nil {
			t.Errorf("%q was kept", id)
		}
		if err := v.Load(id, &Holder{}); err == nil {
			t.Errorf("%q was loaded", id)
		}
	}
}
