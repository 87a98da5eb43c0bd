package vfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrTooLarge is returned when a file is larger than its reader allows.
var ErrTooLarge = errors.New("file is too large")

// File is an open file.
type File interface {
	io.Reader
	io.Writer
	io.Closer
	// Sync makes what was written durable. After an error nothing is known about the file: it must not be used any more.
	Sync() error
}

// FixedFile is an open file whose size does not change: it is written in place.
type FixedFile interface {
	io.WriterAt
	io.Closer
	// Sync makes what was written durable. It need not make anything else so: the size is as it was (fdatasync). After an error
	// nothing is known about the file: it must not be used any more.
	Sync() error
}

// FS is a file system. Paths are in the form of the operating system.
type FS interface {
	// Create makes a new file, or empties an old one, for writing.
	Create(name string, perm fs.FileMode) (File, error)
	// Open opens a file for reading.
	Open(name string) (File, error)
	// OpenFixed opens a file for writing in place.
	OpenFixed(name string) (FixedFile, error)
	// OpenOS is os.OpenFile, for a library that maps files into memory.
	OpenOS(name string, flag int, perm fs.FileMode) (*os.File, error)
	// Rename moves a file over another, atomically.
	Rename(from, to string) error
	// Remove removes a file.
	Remove(name string) error
	// MkdirAll makes a directory and its parents.
	MkdirAll(name string, perm fs.FileMode) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(name string) ([]string, error)
	// Stat describes a file.
	Stat(name string) (fs.FileInfo, error)
	// SyncDir makes the names in a directory durable.
	SyncDir(name string) error
}

// ReadFile returns the content of a file, or ErrTooLarge when it has more than limit bytes.
func ReadFile(fsys FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(content)) > limit {
		return nil, fmt.Errorf("%s: %w: more than %d bytes", name, ErrTooLarge, limit)
	}
	return content, nil
}

// tempSuffix marks files that are not complete; whoever owns the directory may remove them at start.
const tempSuffix = ".tmp"

// IsTemp reports whether name is that of an incomplete file that a crash left.
func IsTemp(name string) bool { return filepath.Ext(name) == tempSuffix }

// WriteFile replaces a file durably and atomically: after a crash there is either the old content or the new.
func WriteFile(fsys FS, name string, perm fs.FileMode, content []byte) error {
	return WriteStream(fsys, name, perm, func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
}

// paceBytes is how much of a stream is written before it is synced. A large file that is synced at its end holds up the small
// syncs of others, such as those of a log, for as long as all of it takes.
const paceBytes = 1 << 20

// paced syncs a file every now and then.
type paced struct {
	File
	unsynced int
}

func (p *paced) Write(b []byte) (int, error) {
	n, err := p.File.Write(b)
	if p.unsynced += n; err == nil && p.unsynced >= paceBytes {
		p.unsynced, err = 0, p.Sync()
	}
	return n, err
}

// WriteStream is WriteFile for content that write produces bit by bit, and gentle to others who use the disk meanwhile.
func WriteStream(fsys FS, name string, perm fs.FileMode, write func(io.Writer) error) error {
	temp := name + tempSuffix
	if err := writeSynced(fsys, temp, perm, write); err != nil {
		_ = fsys.Remove(temp) // best effort: what remains is marked as temporary
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := fsys.Rename(temp, name); err != nil {
		return err
	}
	return fsys.SyncDir(filepath.Dir(name))
}

func writeSynced(fsys FS, name string, perm fs.FileMode, write func(io.Writer) error) error {
	f, err := fsys.Create(name, perm)
	if err != nil {
		return err
	}
	err = write(&paced{File: f})
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// OS is the file system of the operating system.
type OS struct{}

// Create makes a new file with exactly the permissions perm, or empties an old one.
func (OS) Create(name string, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return nil, err
	}
	if err := f.Chmod(perm); err != nil { // the file may be an old one
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Open opens a file for reading.
func (OS) Open(name string) (File, error) { return os.Open(name) }

// OpenFixed opens a file for writing in place.
func (OS) OpenFixed(name string) (FixedFile, error) {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return fixedFile{f}, nil
}

// fixedFile syncs data only.
type fixedFile struct{ *os.File }

// Sync makes what was written durable.
func (f fixedFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// OpenOS is os.OpenFile.
func (OS) OpenOS(name string, flag int, perm fs.FileMode) (*os.File, error) {
	return os.OpenFile(name, flag, perm)
}

// Rename is os.Rename.
func (OS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove is os.Remove.
func (OS) Remove(name string) error { return os.Remove(name) }

// MkdirAll is os.MkdirAll.
func (OS) MkdirAll(name string, perm fs.FileMode) error { return os.MkdirAll(name, perm) }

// ReadDir returns the names in a directory, sorted.
func (OS) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

// Stat is os.Stat.
func (OS) Stat(name string) (fs.FileInfo, error) { return os.Stat(name) }

// SyncDir makes the names in a directory durable.
func (OS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
