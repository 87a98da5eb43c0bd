package filetree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"
)

// Errors of this package.
var (
	// ErrRule is returned when a source and a destination don't go together.
	ErrRule = errors.New("not possible")
	// ErrLimit is returned when there is more than one copy may hold.
	ErrLimit = errors.New("too much for one copy")
	// ErrStream is returned when a stream is damaged, or holds what it may not.
	ErrStream = errors.New("not a usable tar archive")
)

// Limits of one copy. They bound what a source can do to who receives it.
const (
	maxEntries = 4 << 20
	maxBytes   = 1 << 40
	// maxDepth bounds the directories that are open at once.
	maxDepth = 256
	// maxName is PATH_MAX.
	maxName = 4096
	// maxLinks bounds the memory for hard links. Those beyond are copied as files of their own.
	maxLinks = 64 << 10
	// small files are read before their size is told: that of many in /proc is not what stat says, and others grow and shrink.
	small = 1 << 20
)

// Counts is how much was copied.
type Counts struct {
	Entries int
	Bytes   int64 // of files
}

// add counts an entry with a file of so many bytes.
func (c *Counts) add(bytes int64) error {
	c.Entries++
	if c.Entries > maxEntries {
		return fmt.Errorf("%w: more than %d files; copy parts of it", ErrLimit, maxEntries)
	}
	if bytes < 0 || bytes > maxBytes-c.Bytes {
		return fmt.Errorf("%w: more than %d GiB; copy parts of it", ErrLimit, maxBytes>>30)
	}
	c.Bytes += bytes
	return nil
}

// Packer writes a tar stream. Make it with NewPacker, call one of Dir, File and Link, and then Close.
type Packer struct {
	// Warn is told what is left out, and why; never nil.
	Warn func(text string)
	// Skip says whether to leave a directory on another file system out. It is not asked about the source itself. Nil for no.
	Skip func(dir *os.File) bool
	// Counts is what was written so far.
	Counts

	tw    *tar.Writer
	links map[inode]string
}

// inode names a file with several names.
type inode struct{ device, number uint64 }

// NewPacker returns a Packer that writes to w.
func NewPacker(w io.Writer, warn func(text string)) *Packer {
	return &Packer{Warn: warn, tw: tar.NewWriter(w), links: make(map[inode]string)}
}

// Close ends the stream.
func (p *Packer) Close() error { return p.tw.Close() }

// Link writes a symbolic link.
func (p *Packer) Link(as, target string, info fs.FileInfo) error {
	h := header(as, info, tar.TypeSymlink)
	h.Linkname = target
	return p.write(h)
}

// File writes a regular file.
func (p *Packer) File(as string, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s is %s: only files, directories and links can be copied", ErrRule, as, kindOf(info.Mode()))
	}
	return p.file(as, f, info)
}

func (p *Packer) file(as string, f *os.File, info fs.FileInfo) error {
	if first, linked := p.linked(as, info); linked {
		h := header(as, info, tar.TypeLink)
		h.Linkname = first
		return p.write(h)
	}
	h := header(as, info, tar.TypeReg)
	if info.Size() > small {
		h.Size = info.Size()
		if err := p.write(h); err != nil {
			return err
		}
		if _, err := io.CopyN(p.tw, f, h.Size); errors.Is(err, io.EOF) {
			return fmt.Errorf("%s became shorter while it was read", as)
		} else if err != nil {
			return fmt.Errorf("copy %s: %w", as, err)
		}
		return nil
	}
	data, err := io.ReadAll(io.LimitReader(f, small+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", as, err)
	}
	if len(data) > small {
		if info.Size() == 0 {
			return fmt.Errorf("%w: %s says that it is empty and holds more than %d KiB", ErrLimit, as, small>>10)
		}
		data = data[:info.Size()] // it grows
	}
	h.Size = int64(len(data))
	if err := p.write(h); err != nil {
		return err
	}
	_, err = p.tw.Write(data)
	return err
}

// linked gives the name under which a file with several names was written, or remembers this one.
func (p *Packer) linked(as string, info fs.FileInfo) (string, bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || st.Nlink < 2 {
		return "", false
	}
	key := inode{device: uint64(st.Dev), number: st.Ino} //nolint:unconvert // its type differs between systems
	first, seen := p.links[key]
	if !seen && len(p.links) < maxLinks {
		p.links[key] = as
	}
	return first, seen
}

// Dir writes a directory and all below it.
func (p *Packer) Dir(as string, dir *os.Root) error { return p.dir(as, dir, 0) }

func (p *Packer) dir(as string, dir *os.Root, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: %s: directories are nested deeper than %d", ErrLimit, as, maxDepth)
	}
	list, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer list.Close()
	info, err := list.Stat()
	if err != nil {
		return err
	}
	if err := p.write(header(as+"/", info, tar.TypeDir)); err != nil {
		return err
	}
	for {
		const batch = 256
		entries, err := list.ReadDir(batch)
		for _, e := range entries {
			if err := p.entry(dir, e.Name(), as+"/"+e.Name(), depth, info); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list %s: %w", as, err)
		}
	}
}

// entry writes what has a name in a directory, if it is still there and still the same when it is opened (T1, T3).
func (p *Packer) entry(dir *os.Root, name, as string, depth int, parent fs.FileInfo) error {
	if len(as) > maxName {
		return fmt.Errorf("%w: a name of more than %d bytes in %.128q", ErrLimit, maxName, path.Dir(as))
	}
	info, err := dir.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		err = p.subdir(dir, name, as, depth, info, parent)
	case info.Mode().IsRegular():
		err = p.regular(dir, name, as, info)
	case info.Mode()&fs.ModeSymlink != 0:
		var target string
		if target, err = dir.Readlink(name); err == nil {
			return p.Link(as, target, info)
		}
		if errors.Is(err, syscall.EINVAL) {
			err = errChanged
		}
	default:
		p.Warn(fmt.Sprintf("%q is left out: it is %s", as, kindOf(info.Mode())))
	}
	if errors.Is(err, errChanged) || errors.Is(err, fs.ErrNotExist) {
		p.Warn(fmt.Sprintf("%q is left out: it changed while it was read", as))
		return nil
	}
	return err
}

// errChanged is returned when a name came to mean something else.
var errChanged = errors.New("changed")

func (p *Packer) subdir(dir *os.Root, name, as string, depth int, info, parent fs.FileInfo) error {
	sub, err := openDir(dir, name)
	if err != nil {
		return err
	}
	defer sub.Close()
	now, err := sub.Stat(".")
	if err != nil || !os.SameFile(info, now) {
		return errors.Join(err, errChanged)
	}
	if p.Skip != nil && deviceOf(now) != deviceOf(parent) {
		list, err := sub.Open(".")
		if err != nil {
			return err
		}
		defer list.Close()
		if p.Skip(list) {
			p.Warn(fmt.Sprintf("%q is left out: the kernel makes up what is in it", as))
			return nil
		}
	}
	return p.dir(as, sub, depth+1)
}

// openDir opens a directory. What is none is not even opened: that of a FIFO would wait for a writer.
func openDir(dir *os.Root, name string) (*os.Root, error) {
	sub, err := dir.OpenRoot(name + "/.")
	return sub, changed(err)
}

// changed says of an error of opening whether it comes from what was no link, FIFO or file a moment ago.
func changed(err error) error {
	var errno syscall.Errno
	if err == nil || errors.As(err, &errno) && errno != syscall.ENOTDIR && errno != syscall.ELOOP && errno != syscall.ENXIO {
		return err
	}
	return errors.Join(err, errChanged) // os.Root has no error number for a link that leads out
}

func (p *Packer) regular(dir *os.Root, name, as string, info fs.FileInfo) error {
	f, err := dir.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return changed(err)
	}
	defer f.Close()
	now, err := f.Stat()
	if err != nil || !os.SameFile(info, now) || !now.Mode().IsRegular() {
		return errors.Join(err, errChanged)
	}
	return p.file(as, f, now)
}

func deviceOf(info fs.FileInfo) uint64 {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0
	}
	return uint64(st.Dev) //nolint:unconvert // its type differs between systems
}

func (p *Packer) write(h *tar.Header) error {
	if err := p.add(h.Size); err != nil {
		return err
	}
	if err := p.tw.WriteHeader(h); err != nil {
		return fmt.Errorf("write entry %.128q: %w", h.Name, err)
	}
	return nil
}

// Mode bits of tar(5).
const (
	modeSetUID = 0o4000
	modeSetGID = 0o2000
	modeSticky = 0o1000
)

func header(name string, info fs.FileInfo, kind byte) *tar.Header {
	h := &tar.Header{Typeflag: kind, Name: name, Mode: int64(info.Mode().Perm()), ModTime: info.ModTime().Truncate(time.Second)}
	for bit, mode := range map[fs.FileMode]int64{fs.ModeSetuid: modeSetUID, fs.ModeSetgid: modeSetGID, fs.ModeSticky: modeSticky} {
		if info.Mode()&bit != 0 {
			h.Mode |= mode
		}
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok { // no names: looking them up would read files of the container
		h.Uid, h.Gid = int(st.Uid), int(st.Gid)
	}
	return h
}

// kindOf says what a thing is.
func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeDevice != 0:
		return "a device"
	case mode&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	default:
		return "no regular file"
	}
}
