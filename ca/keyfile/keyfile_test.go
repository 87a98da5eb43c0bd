package keyfile

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/atomicfile"
)

// twoCredentials returns credentials of one node before and after a renewal.
func twoCredentials(t testing.TB) (old, fresh ca.Credentials) {
	t.Helper()
	c := renewals(t, 2)
	return c[0], c[1]
}

// renewals returns n credentials of one node.
func renewals(t testing.TB, n int) (all []ca.Credentials) {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	name := ca.Name{ClusterID: catest.NewID(), NodeID: catest.NewID(), Role: api.Role_ROLE_WORKER}
	for range n {
		all = append(all, catest.Credentials(t, root, name, 0))
	}
	return all
}

func TestDir_KeepsCredentials(t *testing.T) {
	for name, sealer := range map[string]Sealer{"clear": nil, "sealed": newSealer(t)} {
		t.Run(name, func(t *testing.T) {
			old, fresh := twoCredentials(t)
			dir := Open(t.TempDir(), sealer)
			if _, err := dir.Load(); !errors.Is(err, ErrNone) {
				t.Fatalf("empty directory: %v", err)
			}
			for _, want := range []ca.Credentials{old, fresh, fresh} {
				save(t, dir, want)
				assertLoads(t, dir, want)
			}
			assertPrivate(t, dir.path)
			if err := dir.Remove(); err != nil {
				t.Fatal(err)
			}
			if _, err := dir.Load(); !errors.Is(err, ErrNone) {
				t.Errorf("after Remove: %v", err)
			}
			if left, _ := os.ReadDir(dir.path); len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

func TestRemove_OfNothing(t *testing.T) {
	if err := Open(t.TempDir(), nil).Remove(); err != nil {
		t.Error(err)
	}
}

// A crash is one of three things at each write: before its rename, with a temporary file left; after it; or an error that the
// process survives, to try again.
func TestSave_SurvivesACrashAtEveryPoint(t *testing.T) {
	old, fresh := twoCredentials(t)
	for _, first := range []bool{true, false} { // a join, a renewal
		for step := range 4 {
			for _, renamed := range []bool{false, true} {
				dir := Open(t.TempDir(), nil)
				if !first {
					save(t, dir, old)
				}
				dir.write = crashAt(step, renamed)
				if err := dir.Save(fresh); !errors.Is(err, errCrash) {
					t.Fatalf("step %d: %v", step, err)
				}
				got, err := Open(filepath.Dir(dir.path), nil).Load()
				switch {
				case first && errors.Is(err, ErrNone):
				case err != nil:
					t.Errorf("join %v, step %d, renamed %v: %v", first, step, renamed, err)
				case !same(got, old) && !same(got, fresh):
					t.Errorf("join %v, step %d, renamed %v: loaded neither old nor new", first, step, renamed)
				}
				assertNoTemporary(t, dir.path)
				dir.write = atomicfile.Write
				save(t, dir, fresh)
				assertLoads(t, dir, fresh)
			}
		}
	}
}

func TestSave_AfterAFailedSaveKeepsTheKeyInUse(t *testing.T) {
	c := renewals(t, 3)
	dir := Open(t.TempDir(), nil)
	save(t, dir, c[0])
	for _, next := range c[1:] { // each stops with two keys in the file, before the certificate
		dir.write = crashAt(2, false)
		if err := dir.Save(next); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		assertLoads(t, dir, c[0])
	}
}

func TestSave_SealsAKeyThatLayInClear(t *testing.T) {
	old, fresh := twoCredentials(t)
	data := t.TempDir()
	save(t, Open(data, nil), old)
	sealer := newSealer(t)
	for step := range 5 {
		dir := Open(data, sealer)
		dir.write = crashAt(step, true)
		if err := dir.Save(fresh); err != nil && !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		if _, err := dir.Load(); err != nil {
			t.Errorf("step %d: %v", step, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(data, "certificates", keyFile))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "BEGIN PRIVATE KEY") || !strings.Contains(string(text), sealedType) {
		t.Errorf("key file is not sealed")
	}
	if _, err := Open(data, nil).Load(); !errors.Is(err, ErrLocked) {
		t.Errorf("without a sealer: %v", err)
	}
	if _, err := Open(data, newSealer(t)).Load(); !errors.Is(err, ErrLocked) {
		t.Errorf("with another sealer: %v", err)
	}
}

func TestLoad_RefusesWhatDoesNotFit(t *testing.T) {
	old, _ := twoCredentials(t)
	other, _ := twoCredentials(t)
	data, otherData := t.TempDir(), t.TempDir()
	save(t, Open(data, nil), old)
	save(t, Open(otherData, nil), other)
	read := func(dir, name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, "certificates", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	cases := []struct {
		name, file string
		data       []byte
	}{
		{"another key", keyFile, read(otherData, keyFile)},
		{"another root", rootFile, read(otherData, rootFile)},
		{"another certificate", certFile, read(otherData, certFile)},
		{"key of no type", keyFile, bytes.ReplaceAll(read(data, keyFile), []byte("PRIVATE"), []byte("CURIOUS"))},
		{"three keys", keyFile, bytes.Repeat(read(data, keyFile), 3)},
		{"cut key", keyFile, read(data, keyFile)[:100]},
		{"empty key", keyFile, nil},
		{"empty certificate", certFile, nil},
		{"leaf as root", rootFile, read(data, certFile)},
		{"huge", rootFile, make([]byte, maxFile+1)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := Open(t.TempDir(), nil)
			save(t, dir, old)
			if err := os.WriteFile(filepath.Join(dir.path, c.file), c.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if got, err := dir.Load(); !errors.Is(err, ErrCorrupt) || !got.IsZero() {
				t.Errorf("Load: %v, want %v", err, ErrCorrupt)
			}
		})
	}
	t.Run("missing key", func(t *testing.T) {
		if err := os.Remove(filepath.Join(data, "certificates", keyFile)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(data, nil).Load(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("Load: %v", err)
		}
	})
}

var errCrash = errors.New("crash")

// crashAt returns a write function that stops at the given call, with the file replaced or only a temporary file written.
func crashAt(step int, renamed bool) func(string, []byte, fs.FileMode) error {
	calls := 0
	return func(path string, data []byte, perm fs.FileMode) error {
		calls++
		if calls <= step {
			return atomicfile.Write(path, data, perm)
		}
		if renamed {
			return errors.Join(errCrash, atomicfile.Write(path, data, perm))
		}
		tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
		return errors.Join(errCrash, os.WriteFile(tmp, data[:len(data)/2], perm))
	}
}

func save(t *testing.T, d *Dir, c ca.Credentials) {
	t.Helper()
	if err := d.Save(c); err != nil {
		t.Fatal(err)
	}
}

func same(a, b ca.Credentials) bool {
	return a.Chain()[0].Equal(b.Chain()[0]) && a.RevealKey().Equal(b.RevealKey()) && a.Roots()[0].Equal(b.Roots()[0])
}

func assertLoads(t *testing.T, d *Dir, want ca.Credentials) {
	t.Helper()
	got, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	if !same(got, want) {
		t.Error("loaded other credentials than were saved")
	}
}

func assertPrivate(t *testing.T, path string) {
	t.Helper()
	want := map[string]fs.FileMode{".": 0o700, rootFile: 0o600, certFile: 0o600, keyFile: 0o600}
	for name, mode := range want {
		info, err := os.Stat(filepath.Join(path, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, want %v", name, info.Mode().Perm(), mode)
		}
	}
	assertNoTemporary(t, path)
}

func assertNoTemporary(t *testing.T, path string) {
	t.Helper()
	left, err := filepath.Glob(filepath.Join(path, ".*.tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files left: %v %v", left, err)
	}
}

// gcm is a Sealer.
type gcm struct{ cipher.AEAD }

func newSealer(t testing.TB) Sealer {
	t.Helper()
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return gcm{aead}
}

func (g gcm) Seal(p []byte) ([]byte, error) { return g.AEAD.Seal(nil, nil, p, nil), nil }

func (g gcm) Open(s []byte) ([]byte, error) { return g.AEAD.Open(nil, nil, s, nil) }
