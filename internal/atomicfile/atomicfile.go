package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Write replaces the file at path by data with permissions perm (before umask). The directory must exist.
func Write(path string, data []byte, perm fs.FileMode) (err error) {
	tmp := tempName(path)
	if err := Clean(path); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp) // the first error is the one that matters
		}
	}()
	if err := writeSynced(tmp, data, perm); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("replace file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// Read reads a file of at most limit bytes; one that has more is an error that matches fs.ErrInvalid.
func Read(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // nothing was written
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%w: %s is larger than %d bytes", fs.ErrInvalid, path, limit)
	}
	return data, err
}

// Replace is Write without the syncs, for what does not outlive a crash of the machine: after one the file may be empty or missing. For readers, and
// after a crash of this process, it has the old bytes or the new ones.
func Replace(path string, data []byte, perm fs.FileMode) error {
	tmp := tempName(path)
	if err := os.WriteFile(tmp, data, perm); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// Remove deletes the file at path durably, and what an interrupted Write left of it. A file that does not exist is no error.
func Remove(path string) error {
	if err := Clean(path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// Move renames a file or directory durably. Both paths are in one directory.
func Move(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

// Clean removes what a Write to path left behind when it was interrupted.
func Clean(path string) error {
	if err := os.Remove(tempName(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove left-over file: %w", err)
	}
	return nil
}

func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
}

// writeSynced creates path, which must not exist: O_EXCL also refuses a symbolic link planted there.
func writeSynced(path string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return fmt.Errorf("create temporary file: %w", err)
	}
	_, werr := f.Write(data)
	serr := f.Sync()
	if err := errors.Join(werr, serr, f.Close()); err != nil {
		return fmt.Errorf("write temporary file: %w", err)
	}
	return nil
}

// syncDir makes a rename or removal in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
