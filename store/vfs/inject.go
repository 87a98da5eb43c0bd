package vfs

import (
	"io/fs"
	"os"
)

// Op is one operation on a file system, as Inject shows it to a test.
type Op struct {
	// Kind is the name of the method: "Create", "Open", "OpenFixed", "OpenOS", "Rename", "Remove", "MkdirAll", "ReadDir", "Stat",
	// "SyncDir", and for files "Read", "Write", "WriteAt", "Sync", "Close".
	Kind string
	// Path is the file or directory; for Rename where it comes from.
	Path string
}

// Inject returns a file system that asks fail before each operation on another one, and returns its error if it is not nil.
// What happens inside a file from OpenOS is not seen.
func Inject(fsys FS, fail func(Op) error) FS { return &inject{fsys, fail} }

type inject struct {
	fs   FS
	fail func(Op) error
}

func (i *inject) Create(name string, perm fs.FileMode) (File, error) {
	if err := i.fail(Op{"Create", name}); err != nil {
		return nil, err
	}
	return i.file(name)(i.fs.Create(name, perm))
}

func (i *inject) Open(name string) (File, error) {
	if err := i.fail(Op{"Open", name}); err != nil {
		return nil, err
	}
	return i.file(name)(i.fs.Open(name))
}

func (i *inject) file(name string) func(File, error) (File, error) {
	return func(f File, err error) (File, error) {
		if err != nil {
			return nil, err
		}
		return &injectFile{f, name, i.fail}, nil
	}
}

func (i *inject) OpenFixed(name string) (FixedFile, error) {
	if err := i.fail(Op{"OpenFixed", name}); err != nil {
		return nil, err
	}
	f, err := i.fs.OpenFixed(name)
	if err != nil {
		return nil, err
	}
	return &injectFixed{f, name, i.fail}, nil
}

func (i *inject) OpenOS(name string, flag int, perm fs.FileMode) (*os.File, error) {
	if err := i.fail(Op{"OpenOS", name}); err != nil {
		return nil, err
	}
	return i.fs.OpenOS(name, flag, perm)
}

func (i *inject) Rename(from, to string) error {
	if err := i.fail(Op{"Rename", from}); err != nil {
		return err
	}
	return i.fs.Rename(from, to)
}

func (i *inject) Remove(name string) error {
	if err := i.fail(Op{"Remove", name}); err != nil {
		return err
	}
	return i.fs.Remove(name)
}

func (i *inject) MkdirAll(name string, perm fs.FileMode) error {
	if err := i.fail(Op{"MkdirAll", name}); err != nil {
		return err
	}
	return i.fs.MkdirAll(name, perm)
}

func (i *inject) ReadDir(name string) ([]string, error) {
	if err := i.fail(Op{"ReadDir", name}); err != nil {
		return nil, err
	}
	return i.fs.ReadDir(name)
}

func (i *inject) Stat(name string) (fs.FileInfo, error) {
	if err := i.fail(Op{"Stat", name}); err != nil {
		return nil, err
	}
	return i.fs.Stat(name)
}

func (i *inject) SyncDir(name string) error {
	if err := i.fail(Op{"SyncDir", name}); err != nil {
		return err
	}
	return i.fs.SyncDir(name)
}

type injectFile struct {
	f    File
	name string
	fail func(Op) error
}

func (f *injectFile) Read(p []byte) (int, error) {
	if err := f.fail(Op{"Read", f.name}); err != nil {
		return 0, err
	}
	return f.f.Read(p)
}

func (f *injectFile) Write(p []byte) (int, error) {
	if err := f.fail(Op{"Write", f.name}); err != nil {
		return 0, err
	}
	return f.f.Write(p)
}

func (f *injectFile) Sync() error {
	if err := f.fail(Op{"Sync", f.name}); err != nil {
		return err
	}
	return f.f.Sync()
}

func (f *injectFile) Close() error {
	if err := f.fail(Op{"Close", f.name}); err != nil {
		return err
	}
	return f.f.Close()
}

type injectFixed struct {
	f    FixedFile
	name string
	fail func(Op) error
}

func (f *injectFixed) WriteAt(p []byte, offset int64) (int, error) {
	if err := f.fail(Op{"WriteAt", f.name}); err != nil {
		return 0, err
	}
	return f.f.WriteAt(p, offset)
}

func (f *injectFixed) Sync() error {
	if err := f.fail(Op{"Sync", f.name}); err != nil {
		return err
	}
	return f.f.Sync()
}

func (f *injectFixed) Close() error {
	if err := f.fail(Op{"Close", f.name}); err != nil {
		return err
	}
	return f.f.Close()
}
