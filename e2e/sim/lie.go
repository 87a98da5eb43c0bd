package main

import (
	"errors"
	"io/fs"

	"github.com/skep-io/skep/store/vfs"
)

// lie is a disk that does not do what it says, for planted bugs.
func (n *node) lie(fsys vfs.FS) vfs.FS {
	switch n.w.bug {
	case noDirSync:
		return lazyNames{fsys}
	case noSync:
		return liar{fsys, func(func() error) error { return nil }}
	case ignoreErrors:
		return liar{fsys, func(sync func() error) error {
			if err := sync(); !errors.Is(err, errDisk) {
				return err
			}
			return nil
		}}
	}
	return fsys
}

// lazyNames does not make names durable.
type lazyNames struct{ vfs.FS }

// SyncDir does nothing.
func (lazyNames) SyncDir(string) error { return nil }

// liar changes what writing and syncing files answers.
type liar struct {
	vfs.FS
	answer func(do func() error) error
}

// Create makes a file that lies.
func (l liar) Create(name string, perm fs.FileMode) (vfs.File, error) {
	f, err := l.FS.Create(name, perm)
	if err != nil {
		return nil, err
	}
	return lyingFile{f, l}, nil
}

// OpenFixed opens a file that lies.
func (l liar) OpenFixed(name string) (vfs.FixedFile, error) {
	f, err := l.FS.OpenFixed(name)
	if err != nil {
		return nil, err
	}
	return lyingFixed{f, l}, nil
}

type lyingFile struct {
	vfs.File
	l liar
}

// Sync says what the liar wants.
func (f lyingFile) Sync() error { return f.l.answer(f.File.Sync) }

type lyingFixed struct {
	vfs.FixedFile
	l liar
}

// WriteAt writes, but an error of the disk is the liar's to tell.
func (f lyingFixed) WriteAt(b []byte, offset int64) (int, error) {
	n, err := f.FixedFile.WriteAt(b, offset)
	if errors.Is(err, errDisk) {
		return len(b), f.l.answer(func() error { return err })
	}
	return n, err
}

// Sync says what the liar wants.
func (f lyingFixed) Sync() error { return f.l.answer(f.FixedFile.Sync) }
