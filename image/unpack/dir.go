package unpack

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// resolveFlags keep every resolution below the descriptor that it starts from:
// ".." stops there, absolute symlinks start there, and /proc-style links, which
// jump anywhere, are errors.
const resolveFlags = unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS

const (
	// cacheSize is how many directories stay open: layers are written directory
	// by directory, so that a few hundred hit nearly always.
	cacheSize = 256
	// maxSymlinks is how many links one path may lead through, as in Linux.
	maxSymlinks = 40
	// implicitMode is the mode of a directory that no layer describes.
	implicitMode = 0o755
)

// dirCache keeps descriptors of directories by their path in the layer. It owns
// them; a descriptor is good until the next insert or flush.
type dirCache struct {
	fds   map[string]int
	order []string // oldest first
}

func (c *dirCache) insert(dir string, fd int) {
	if c.fds == nil {
		c.fds = make(map[string]int, cacheSize)
	}
	if len(c.order) >= cacheSize {
		half := c.order[:cacheSize/2]
		for _, old := range half {
			unix.Close(c.fds[old])
			delete(c.fds, old)
		}
		c.order = append(c.order[:0], c.order[len(half):]...)
	}
	c.fds[dir] = fd
	c.order = append(c.order, dir)
}

// flush forgets everything. It must be called whenever a directory or a symlink
// is replaced, since paths may lead elsewhere then.
func (c *dirCache) flush() {
	for _, fd := range c.fds {
		unix.Close(fd)
	}
	clear(c.fds)
	c.order = c.order[:0]
}

// openIn opens name below root without ever leaving it.
func openIn(root int, name string, flags uint64) (int, error) {
	for {
		fd, err := unix.Openat2(root, name, &unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: resolveFlags})
		if err == unix.EINTR || err == unix.EAGAIN { // EAGAIN: a rename elsewhere raced with ".."
			continue
		}
		return fd, err
	}
}

// openDirAt opens a directory that must be a plain child of parent.
func openDirAt(parent int, base string) (int, error) {
	return unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// lookup opens a directory of the layer for its attributes. The caller closes it.
func (a *applier) lookup(dir string) (int, error) {
	return openIn(a.root, dir, unix.O_RDONLY|unix.O_DIRECTORY)
}

// dir returns a descriptor of the directory, following the layer's own symlinks
// inside the layer, and makes what is missing. The cache owns the descriptor.
func (a *applier) dir(dir string) (int, error) {
	if dir == "." {
		return a.root, nil
	}
	if fd, ok := a.dirs.fds[dir]; ok {
		return fd, nil
	}
	const flags = unix.O_PATH | unix.O_DIRECTORY
	fd, err := openIn(a.root, dir, flags)
	if errors.Is(err, unix.ENOENT) {
		if err := a.makeMissing(dir); err != nil {
			return -1, err
		}
		fd, err = openIn(a.root, dir, flags)
	}
	if err != nil {
		return -1, fmt.Errorf("directory %q: %w", clip(dir), err)
	}
	a.dirs.insert(dir, fd)
	return fd, nil
}

// makeMissing makes the directories of a path, or those that a dangling symlink
// in it points at.
func (a *applier) makeMissing(dir string) error {
	real, err := a.resolve(dir)
	if err != nil {
		return err
	}
	if real != dir { // through a symlink: its target may exist up to some point
		_, err := a.dir(real)
		return err
	}
	parent, err := a.dir(path.Dir(dir))
	if err != nil {
		return err
	}
	base := path.Base(dir)
	if err := unix.Mkdirat(parent, base, 0o700); err != nil {
		return fmt.Errorf("make directory %q: %w", clip(dir), err)
	}
	fd, err := openDirAt(parent, base)
	if err != nil {
		return fmt.Errorf("make directory %q: %w", clip(dir), err)
	}
	defer unix.Close(fd)
	if err := a.inherit(fd, dir); err != nil {
		return fmt.Errorf("make directory %q: %w", clip(dir), err)
	}
	return nil
}

// resolve returns dir with the layer's symlinks followed, whether or not its
// components exist. The result is a hint: the kernel resolves again when it is
// used, and stays below the root whatever it says.
func (a *applier) resolve(dir string) (string, error) {
	todo := strings.Split(dir, "/")
	real, links := ".", 0
	for len(todo) > 0 {
		component := todo[0]
		todo = todo[1:]
		switch component {
		case "", ".":
			continue
		case "..":
			real = path.Dir(real)
			continue
		}
		next := path.Join(real, component)
		link, err := a.readlink(next)
		if err != nil {
			return "", fmt.Errorf("resolve %q: %w", clip(dir), err)
		}
		if link == "" {
			real = next
			continue
		}
		if links++; links > maxSymlinks {
			return "", fmt.Errorf("%w: symlinks in %q lead in a circle", ErrLayer, clip(dir))
		}
		if strings.HasPrefix(link, "/") {
			real = "."
		}
		todo = append(strings.Split(link, "/"), todo...)
	}
	if len(real) > maxPath || strings.Count(real, "/") >= maxDepth {
		return "", fmt.Errorf("%w: symlinks in %q lead too deep", ErrLimit, clip(dir))
	}
	return real, nil
}

// readlink returns the target of a symlink, or "" when name is something else
// or does not exist.
func (a *applier) readlink(name string) (string, error) {
	fd, err := openIn(a.root, name, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var buf [maxPath]byte
	n, err := unix.Readlinkat(fd, "", buf[:])
	if err != nil { // ENOENT: not a symlink
		return "", nil
	}
	return string(buf[:n]), nil
}

// inherit gives the directory fd the metadata that the path has in the nearest
// layer below that has it (I3), or the metadata of a fresh root directory.
func (a *applier) inherit(fd int, dir string) error {
	for _, parent := range a.parents {
		from, err := openIn(parent, dir, unix.O_RDONLY|unix.O_DIRECTORY)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil { // a whiteout or a file: below it, the path is hidden
			break
		}
		modified, err := copyMetadata(from, fd)
		unix.Close(from)
		if err != nil {
			return err
		}
		return a.keepTime(dir, modified)
	}
	if err := unix.Fchown(fd, 0, 0); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, implicitMode); err != nil {
		return err
	}
	return a.keepTime(dir, time.Unix(0, 0)) // the same on every node
}

// copyMetadata copies what inherit promises and returns the time to set later.
func copyMetadata(from, to int) (time.Time, error) {
	var st unix.Stat_t
	if err := unix.Fstat(from, &st); err != nil {
		return time.Time{}, err
	}
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return time.Time{}, err
	}
	if err := copyXattrs(from, to); err != nil {
		return time.Time{}, err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return time.Time{}, err
	}
	return time.Unix(st.Mtim.Unix()), nil
}
