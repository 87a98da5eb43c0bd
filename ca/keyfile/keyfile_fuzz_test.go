package keyfile

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzLoad checks that whatever is on disk, Load returns consistent credentials or one of its errors.
func FuzzLoad(f *testing.F) {
	old, _ := twoCredentials(f)
	data := f.TempDir()
	if err := Open(data, nil).Save(old); err != nil {
		f.Fatal(err)
	}
	var files [3][]byte
	for i, name := range []string{rootFile, certFile, keyFile} {
		b, err := os.ReadFile(filepath.Join(data, "certificates", name))
		if err != nil {
			f.Fatal(err)
		}
		files[i] = b
	}
	f.Add(files[0], files[1], files[2])
	f.Add(files[1], files[0], files[2])
	f.Add([]byte{}, files[1], []byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	sealer := newSealer(f)
	f.Fuzz(func(t *testing.T, root, cert, key []byte) {
		c, err := assemble(root, cert, key, sealer)
		if err == nil {
			if !c.RevealKey().PublicKey.Equal(c.Chain()[0].PublicKey) || c.Name().Validate() != nil {
				t.Fatal("inconsistent credentials")
			}
			return
		}
		if !c.IsZero() {
			t.Fatal("credentials came with an error")
		}
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrLocked) {
			t.Fatalf("error that no caller can branch on: %v", err)
		}
	})
}
