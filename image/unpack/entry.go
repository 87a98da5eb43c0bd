package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"
)

// target is where an entry goes: base below the directory that parent is a
// descriptor of and dir the path of.
type target struct {
	dir, base string
	parent    int
}

func (t target) name() string { return path.Join(t.dir, t.base) }

// replace removes what is at t, which never follows a symlink, and returns t
// with a descriptor that is still good.
func (a *applier) replace(t target) (target, error) {
	if err := removeAll(t.parent, t.base, 0); err != nil {
		return t, fmt.Errorf("replace: %w", err)
	}
	a.dirs.flush()
	parent, err := a.dir(t.dir)
	t.parent = parent
	return t, err
}

// create runs make, and once more after removing what was in the way.
func (a *applier) create(t target, make func(target) error) error {
	err := make(t)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	if t, err = a.replace(t); err != nil {
		return err
	}
	return make(t)
}

// makeDir makes a directory or takes over the one that is there: an entry for a
// directory changes its metadata, not its content.
func (a *applier) makeDir(t target, h *tar.Header) error {
	err := unix.Mkdirat(t.parent, t.base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(t.parent, t.base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		err = nil
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			t, err = a.replaceByDir(t, st)
		}
	}
	if err != nil {
		return err
	}
	fd, err := openDirAt(t.parent, t.base)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return a.finishDir(fd, t.name(), h)
}

// replaceByDir replaces a file by a directory. Where the file was this layer's
// whiteout the directory must go on hiding what is below it.
func (a *applier) replaceByDir(t target, st unix.Stat_t) (target, error) {
	t, err := a.replace(t)
	if err != nil {
		return t, err
	}
	if err := unix.Mkdirat(t.parent, t.base, 0o700); err != nil {
		return t, err
	}
	if isWhiteout(st) {
		return t, a.markOpaque(t.name())
	}
	return t, nil
}

func (a *applier) finishDir(fd int, name string, h *tar.Header) error {
	if err := setMetadata(fd, h); err != nil {
		return err
	}
	return a.keepTime(name, h.ModTime)
}

func (a *applier) makeFile(t target, h *tar.Header, content io.Reader) error {
	if h.Size < 0 || h.Size > a.limits.Bytes-a.report.Bytes {
		return fmt.Errorf("%w: more than %d bytes of content", ErrLimit, a.limits.Bytes)
	}
	a.report.Bytes += h.Size
	return a.create(t, func(t target) error {
		const flags = unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err := unix.Openat(t.parent, t.base, flags, 0o600)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := a.writeContent(fd, h, content); err != nil {
			return err
		}
		if err := setMetadata(fd, h); err != nil {
			return err
		}
		return setTime(fd, "", h.ModTime, unix.AT_EMPTY_PATH)
	})
}

func (a *applier) writeContent(fd int, h *tar.Header, content io.Reader) error {
	if h.Size == 0 {
		return nil
	}
	// The wrapper hides WriteTo, so that the buffer is used.
	n, err := io.CopyBuffer(fdWriter(fd), struct{ io.Reader }{content}, a.buf)
	if err != nil {
		return badStream(err)
	}
	if n != h.Size {
		return fmt.Errorf("%w: %d bytes of content, expected %d", ErrLayer, n, h.Size)
	}
	return nil
}

// fdWriter writes to a descriptor of a regular file. An os.File would cost an
// allocation, a finalizer and a system call more for each of many small files.
type fdWriter int

func (w fdWriter) Write(p []byte) (written int, err error) {
	for written < len(p) {
		n, err := unix.Write(int(w), p[written:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return written, fmt.Errorf("write: %w", err)
		}
		written += n
	}
	return written, nil
}

// makeLink makes a hard link. Its target is a name in this layer; linkat does
// not follow it when it is a symlink.
func (a *applier) makeLink(t target, h *tar.Header) error {
	old, err := cleanName(h.Linkname)
	if err != nil {
		return fmt.Errorf("hard link to %q: %w", clip(h.Linkname), err)
	}
	if old == t.name() {
		return nil // to itself
	}
	err = a.create(t, func(t target) error {
		oldDir, err := openIn(a.root, path.Dir(old), unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer unix.Close(oldDir)
		return unix.Linkat(oldDir, path.Base(old), t.parent, t.base, 0)
	})
	if errors.Is(err, unix.EPERM) { // the kernel's answer for directories
		return fmt.Errorf("%w: hard link to %q: %w", ErrLayer, clip(h.Linkname), err)
	}
	if err != nil {
		return fmt.Errorf("hard link to %q, which must be a file of the same layer: %w", clip(h.Linkname), err)
	}
	return nil
}

func (a *applier) makeSymlink(t target, h *tar.Header) error {
	if h.Linkname == "" || len(h.Linkname) >= maxPath {
		return fmt.Errorf("%w: symlink to a path of %d bytes", ErrLayer, len(h.Linkname))
	}
	return a.create(t, func(t target) error {
		if err := unix.Symlinkat(h.Linkname, t.parent, t.base); err != nil {
			return err
		}
		if err := unix.Fchownat(t.parent, t.base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		return setTime(t.parent, t.base, h.ModTime, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// makeNode makes a device or a pipe. Devices cannot be opened below an overlay
// mounted nodev, but images of whole distributions contain them.
func (a *applier) makeNode(t target, h *tar.Header) error {
	mode := uint32(h.Mode & 0o7777)
	switch h.Typeflag {
	case tar.TypeChar:
		mode |= unix.S_IFCHR
	case tar.TypeBlock:
		mode |= unix.S_IFBLK
	default:
		mode |= unix.S_IFIFO
	}
	var device uint64
	if h.Typeflag != tar.TypeFifo {
		// The kernel keeps 12 bits of major and 20 of minor and drops the rest,
		// so that 4096:0 would come out as 0:0.
		if h.Devmajor < 0 || h.Devmajor > 0xfff || h.Devminor < 0 || h.Devminor > 0xfffff {
			return fmt.Errorf("%w: device number %d:%d", ErrLayer, h.Devmajor, h.Devminor)
		}
		device = unix.Mkdev(uint32(h.Devmajor), uint32(h.Devminor))
	}
	if h.Typeflag == tar.TypeChar && device == 0 {
		return fmt.Errorf("%w: character device 0:0 is a whiteout; only .wh. names may make one", ErrLayer)
	}
	return a.create(t, func(t target) error {
		if err := unix.Mknodat(t.parent, t.base, mode, int(device)); err != nil {
			return err
		}
		if err := unix.Fchownat(t.parent, t.base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		// After chown, which clears bits, and past the umask. The node was
		// made with O_EXCL semantics just now, so this is no symlink.
		if err := unix.Fchmodat(t.parent, t.base, mode&0o7777, 0); err != nil {
			return err
		}
		return setTime(t.parent, t.base, h.ModTime, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// setMetadata sets owner, attributes and mode, in the order in which none
// clears another: chown drops setuid bits and file capabilities.
func setMetadata(fd int, h *tar.Header) error {
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	if err := setXattrs(fd, h.PAXRecords); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(h.Mode&0o7777)); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	return nil
}

func setTime(fd int, base string, t time.Time, flags int) error {
	ts := unix.Timespec{Sec: t.Unix(), Nsec: int64(t.Nanosecond())}
	return unix.UtimesNanoAt(fd, base, []unix.Timespec{ts, ts}, flags)
}

// removeAll removes base and everything below it, without following symlinks.
func removeAll(parent int, base string, depth int) error {
	err := unix.Unlinkat(parent, base, 0)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	if !errors.Is(err, unix.EISDIR) {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("%w: too deep to remove", ErrLimit)
	}
	fd, err := openDirAt(parent, base)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), base)
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := removeAll(fd, name, depth+1); err != nil {
			return err
		}
	}
	return unix.Unlinkat(parent, base, unix.AT_REMOVEDIR)
}
