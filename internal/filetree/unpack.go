package filetree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"
)

// Options say how to unpack. The zero value sets no owner, and is for streams that nobody vouches for.
type Options struct {
	// Archive takes a stream as a tar archive whose entries go into the destination, which must be a directory. Otherwise it is one of
	// a Packer's.
	Archive bool
	// Owner sets the user and group ids that the stream has. Otherwise all belongs to who unpacks.
	Owner bool
	// SetID keeps set-user-ID and set-group-ID (T3).
	SetID bool
	// Warn is told what is left out, and why; never nil.
	Warn func(text string)
}

// Destination is a place that may be there or not.
type Destination struct {
	// Path is for errors.
	Path string
	// Dir is the directory at the place, or nil.
	Dir *os.Root
	// Parent is the directory that has it, and Name its name there; Parent is nil for a directory that is known as itself, as "/".
	Parent *os.Root
	Name   string
	// Exists says that something else than a directory is there.
	Exists bool
	// Directory says that it must be one: the path was written with a slash at its end.
	Directory bool
}

// Close closes the directories.
func (d *Destination) Close() {
	for _, r := range []*os.Root{d.Dir, d.Parent} {
		if r != nil {
			r.Close() // nothing was written through the handle itself
		}
	}
}

// Unpack puts what a stream holds at a destination:
//
//	                    nothing is there        a directory is there            something else is there
//	a file or link      it is made              it goes into it, by its name    it takes the place
//	                    (but not as NAME/)
//	a directory         it is made so           it goes into it, by its name    ErrRule
//	what one contains   it is made as one       it goes into it                 ErrRule
//
// A link at the destination is not followed but replaced, and so is everything but a directory below it.
func Unpack(r io.Reader, to *Destination, o Options) (Counts, error) {
	u := &unpacker{tr: tar.NewReader(r), o: o, to: to}
	err := u.run()
	if err == nil {
		_, err = io.Copy(io.Discard, io.LimitReader(r, maxTrailer)) // so that who sends is not left with what comes after the end
	}
	return u.Counts, err
}

// maxTrailer is what may follow the end of an archive: tar fills up to a record.
const maxTrailer = 1 << 20

type unpacker struct {
	Counts

	tr *tar.Reader
	o  Options
	to *Destination

	root  *os.Root // everything is written in it (T1)
	first string   // the name that all entries have or are below (T2), or "." for any
	made  []madeDir
}

// madeDir is a directory that gets its owner and mode when it is full.
type madeDir struct {
	name string
	h    *tar.Header
}

func (u *unpacker) run() error {
	if u.o.Archive {
		if u.to.Dir == nil {
			return fmt.Errorf("%w: %q must be a directory that is there, for an archive to be unpacked in it", ErrRule, u.to.Path)
		}
		u.root, u.first = u.to.Dir, "."
		return u.rest()
	}
	h, name, err := u.next()
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it is empty", ErrStream)
	}
	if err != nil {
		return err
	}
	if strings.Contains(name, "/") || h.Typeflag != tar.TypeDir && name == "." {
		return fmt.Errorf("%w: it does not begin with what it is about but with %.128q", ErrStream, h.Name)
	}
	u.first = name
	if h.Typeflag != tar.TypeDir {
		return u.single(h, name)
	}
	if err := u.enter(h, name); err != nil {
		return err
	}
	defer func() {
		if u.root != u.to.Dir {
			u.root.Close()
		}
	}()
	return u.rest()
}

// single puts a file or link in its place. Nothing may follow it.
func (u *unpacker) single(h *tar.Header, name string) error {
	switch {
	case u.to.Dir != nil:
		u.root = u.to.Dir
	case u.to.Directory:
		return fmt.Errorf("%w: there is no directory %q: make it first, or leave the slash out", ErrRule, u.to.Path)
	default:
		u.root, name = u.to.Parent, u.to.Name
	}
	if h.Typeflag == tar.TypeLink {
		return fmt.Errorf("%w: %.128q is a link to what is not in it", ErrStream, h.Name)
	}
	if err := u.put(h, name); err != nil {
		return err
	}
	switch extra, _, err := u.next(); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return err
	default:
		return fmt.Errorf("%w: %.128q comes after a file", ErrStream, extra.Name) // T2
	}
}

// enter finds or makes the directory that the stream's is to be.
func (u *unpacker) enter(h *tar.Header, name string) error {
	parent := u.to.Parent
	switch {
	case u.to.Exists:
		return fmt.Errorf("%w: a directory can't be copied onto %q, which is none", ErrRule, u.to.Path)
	case u.to.Dir != nil && name == ".":
		u.root = u.to.Dir
		return nil
	case u.to.Dir != nil:
		parent = u.to.Dir
	default:
		name = u.to.Name
	}
	made, err := mkdir(parent, name)
	if err != nil {
		return err
	}
	if u.root, err = openDir(parent, name); err != nil {
		return err
	}
	if made {
		u.made = append(u.made, madeDir{name: ".", h: h})
	}
	return nil
}

// mkdir makes a directory for the time of unpacking, unless there is one.
func mkdir(root *os.Root, name string) (made bool, err error) {
	err = root.Mkdir(name, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err == nil, err
	}
	info, err := root.Lstat(name)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%w: a directory can't take the place of %q, which is %s", ErrRule, name, kindOf(info.Mode()))
	}
	return false, err
}

// rest unpacks all entries that come.
func (u *unpacker) rest() error {
	for {
		h, name, err := u.next()
		if errors.Is(err, io.EOF) {
			return u.finish(".", true)
		}
		if err != nil {
			return err
		}
		if name, err = u.inside(name); err != nil {
			return err
		}
		if err := u.finish(name, false); err != nil {
			return err
		}
		if err := u.put(h, name); err != nil {
			return err
		}
	}
}

// inside gives the name below the directory that is unpacked (T2).
func (u *unpacker) inside(name string) (string, error) {
	if u.first == "." {
		return name, nil
	}
	below, ok := strings.CutPrefix(name, u.first+"/")
	if !ok {
		return "", fmt.Errorf("%w: %.128q is not in %q", ErrStream, name, u.first)
	}
	return below, nil
}

// next gives the next entry and its name, made clean.
func (u *unpacker) next() (*tar.Header, string, error) {
	for {
		h, err := u.tr.Next()
		if errors.Is(err, io.EOF) {
			return nil, "", io.EOF
		}
		if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) {
			return nil, "", fmt.Errorf("%w: %w", ErrStream, err)
		}
		if err != nil {
			return nil, "", err
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if sparse(h) { // few bytes would fill a disk
			return nil, "", fmt.Errorf("%w: %.128q has holes; make the archive without --sparse", ErrStream, h.Name)
		}
		if err := u.add(h.Size); err != nil {
			return nil, "", err
		}
		name, err := clean(h.Name)
		return h, name, err
	}
}

// sparse reports whether an entry stands for more bytes than it has.
func sparse(h *tar.Header) bool {
	for key := range h.PAXRecords {
		if strings.HasPrefix(key, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

// clean checks a name of an entry.
func clean(name string) (string, error) {
	out := path.Clean(name)
	if name == "" || len(name) > maxName || strings.ContainsRune(name, 0) || !filepath.IsLocal(out) || strings.Count(out, "/") > maxDepth {
		return "", fmt.Errorf("%w: no file may be called %.128q", ErrStream, name)
	}
	return out, nil
}

// put makes one thing. name is below u.root.
func (u *unpacker) put(h *tar.Header, name string) error {
	if u.o.Archive && name != "." {
		if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if name == "." {
			return nil
		}
		made, err := mkdir(u.root, name)
		if made {
			u.made = append(u.made, madeDir{name: name, h: h})
		}
		return err
	case tar.TypeReg:
		return u.file(h, name)
	case tar.TypeSymlink:
		if _, err := u.clear(name); err != nil {
			return err
		}
		if err := u.root.Symlink(h.Linkname, name); err != nil {
			return err
		}
		if u.o.Owner {
			return u.root.Lchown(name, h.Uid, h.Gid)
		}
		return nil
	case tar.TypeLink:
		return u.link(h, name)
	default:
		u.o.Warn(fmt.Sprintf("%q is left out: it is no file, directory or link", h.Name)) // T3
		return nil
	}
}

// link gives a file one more name.
func (u *unpacker) link(h *tar.Header, name string) error {
	to, err := clean(h.Linkname)
	if err == nil {
		to, err = u.inside(to)
	}
	if err != nil {
		return err
	}
	if to == name {
		return fmt.Errorf("%w: %.128q is a link to itself", ErrStream, h.Name)
	}
	if _, err := u.clear(name); err != nil {
		return err
	}
	return u.root.Link(to, name)
}

// clear makes place for something that is no directory. It reports whether a file must be written in place, because something is
// mounted there.
func (u *unpacker) clear(name string) (inPlace bool, err error) {
	info, err := u.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.IsDir() {
		return false, fmt.Errorf("%w: a file can't take the place of the directory %q", ErrRule, name)
	}
	err = u.root.Remove(name)
	if errors.Is(err, syscall.EBUSY) && info.Mode().IsRegular() {
		return true, nil
	}
	return false, err
}

func (u *unpacker) file(h *tar.Header, name string) error {
	inPlace, err := u.clear(name)
	if err != nil {
		return err
	}
	flags := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if inPlace {
		flags = os.O_WRONLY | os.O_TRUNC | syscall.O_NONBLOCK
	}
	f, err := u.root.OpenFile(name, flags, 0o600)
	if err != nil {
		return err
	}
	err = u.fill(f, h, inPlace)
	if err = errors.Join(err, f.Close()); err != nil || inPlace {
		return err
	}
	return u.root.Chtimes(name, h.ModTime, h.ModTime)
}

// fill writes a file, and gives it its owner and mode unless it was there.
func (u *unpacker) fill(f *os.File, h *tar.Header, inPlace bool) error {
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errChanged
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(f, u.tr)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends within %.128q", ErrStream, h.Name)
	}
	if err != nil {
		return fmt.Errorf("write %.128q: %w", h.Name, err)
	}
	if inPlace {
		return nil
	}
	return u.dress(f, h)
}

// dress sets owner and mode, in this order: a change of the owner takes rights from the mode.
func (u *unpacker) dress(f *os.File, h *tar.Header) error {
	if u.o.Owner {
		if err := f.Chown(h.Uid, h.Gid); err != nil {
			return fmt.Errorf("%w: only root can give files to others: leave -a out", err)
		}
	}
	mode := fs.FileMode(h.Mode).Perm()
	if h.Mode&modeSticky != 0 && h.Typeflag == tar.TypeDir {
		mode |= fs.ModeSticky
	}
	if u.o.SetID && h.Mode&modeSetUID != 0 {
		mode |= fs.ModeSetuid
	}
	if u.o.SetID && h.Mode&modeSetGID != 0 {
		mode |= fs.ModeSetgid
	}
	return f.Chmod(mode)
}

// finish gives the directories that were made, and that don't hold what comes next, their owners, modes and times.
func (u *unpacker) finish(next string, all bool) error {
	for len(u.made) > 0 {
		d := u.made[len(u.made)-1]
		if !all && (d.name == "." || strings.HasPrefix(next, d.name+"/")) {
			return nil
		}
		u.made = u.made[:len(u.made)-1]
		f, err := u.root.OpenFile(d.name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if err := errors.Join(u.dress(f, d.h), f.Close(), u.root.Chtimes(d.name, d.h.ModTime, d.h.ModTime)); err != nil {
			return err
		}
	}
	return nil
}
