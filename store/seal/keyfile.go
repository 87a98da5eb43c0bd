package seal

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/skep-io/skep/store/vfs"
)

const (
	keyFilePerm = 0o600
	keyFileHead = "skep key-encryption key 1"
	maxKeyFile  = 256
)

// ErrKeyFile is returned when a key file is damaged or readable for others.
var ErrKeyFile = errors.New("unusable key file")

// KeyFile returns the KEK in a file, and makes the file with a fresh key when there is none. It refuses a file that anybody
// but its owner may read.
func KeyFile(fsys vfs.FS, path string) (Key, error) {
	info, err := fsys.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		k := NewKey()
		return k, WriteKeyFile(fsys, path, k)
	}
	if err != nil {
		return Key{}, fmt.Errorf("read key file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return Key{}, fmt.Errorf("%w: others may read %s (%v); if nobody did, run: chmod 600 %s",
			ErrKeyFile, path, info.Mode().Perm(), path)
	}
	b, err := vfs.ReadFile(fsys, path, maxKeyFile)
	if err != nil {
		return Key{}, fmt.Errorf("read key file: %w", err)
	}
	head, text, _ := strings.Cut(strings.TrimSuffix(string(b), "\n"), "\n")
	if head != keyFileHead {
		return Key{}, fmt.Errorf("%w: %s does not start with %q; restore it from a copy", ErrKeyFile, path, keyFileHead)
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) != KeySize {
		return Key{}, fmt.Errorf("%w: %s is damaged; restore it from a copy", ErrKeyFile, path)
	}
	return Key{[KeySize]byte(raw)}, nil
}

// WriteKeyFile replaces a key file, atomically and durably.
func WriteKeyFile(fsys vfs.FS, path string, k Key) error {
	text := keyFileHead + "\n" + base64.StdEncoding.EncodeToString(k.bytes[:]) + "\n"
	if err := vfs.WriteFile(fsys, path, keyFilePerm, []byte(text)); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	return nil
}
