package filetree

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// directory reports whether a path is written as that of a directory.
func directory(path string) bool {
	return strings.HasSuffix(path, "/") || path == "." || path == ".." || strings.HasSuffix(path, "/.") || strings.HasSuffix(path, "/..")
}

// Contents reports whether the path of a source means what the directory contains and not the directory: it ends with "/.", or is
// ".", or is the root, which has no name.
func Contents(path string) bool {
	return path == "." || strings.HasSuffix(path, "/.") || filepath.Clean(path) == "/"
}

// PackPath packs what is at a path of this machine. A link is packed as one, unless follow is set or the path ends with a slash.
func PackPath(p *Packer, path string, follow bool) error {
	info, err := os.Lstat(path)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 && (follow || directory(path)) {
		info, err = os.Stat(path)
	}
	if err != nil {
		return err
	}
	as := "."
	if !Contents(path) {
		whole, err := filepath.Abs(path)
		if err != nil {
			return err
		}
		as = filepath.Base(whole)
	}
	switch {
	case info.IsDir():
		dir, err := os.OpenRoot(path)
		if err != nil {
			return err
		}
		defer dir.Close()
		return p.Dir(as, dir)
	case directory(path):
		return fmt.Errorf("%w: %q is not a directory", ErrRule, path)
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return p.Link(as, target, info)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return p.File(as, f)
}

// Open finds the destination at a path of this machine.
//
// A link there may be the work of who sends, by an earlier copy: so it is followed only where the path says by a slash at its end
// that a directory is meant. The caller closes the destination.
func Open(path string) (*Destination, error) {
	d := &Destination{Path: path, Directory: directory(path)}
	whole := filepath.Clean(path)
	d.Name = filepath.Base(whole)
	var err error
	if d.Name == "." || d.Name == ".." || d.Name == "/" {
		d.Dir, err = os.OpenRoot(whole)
		return d, err
	}
	if d.Parent, err = os.OpenRoot(filepath.Dir(whole)); err != nil {
		return nil, fmt.Errorf("the directory for %q: %w", path, err)
	}
	if err := d.look(whole); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// look says what is at a destination.
func (d *Destination) look(whole string) error {
	info, err := d.Parent.Lstat(d.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		d.Dir, err = openDir(d.Parent, d.Name)
	case d.Directory:
		d.Dir, err = os.OpenRoot(whole + "/.")
	case info.Mode()&fs.ModeSymlink != 0:
		if to, err := os.Stat(whole); err == nil && to.IsDir() {
			return fmt.Errorf("%w: %q is a link to a directory: write %q to copy into that", ErrRule, d.Path, d.Path+"/")
		}
		d.Exists = true
	default:
		d.Exists = true
	}
	return err
}
