package bundle

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/spec"
)

// copyUp fills new file systems in memory with what the root file system has at their places, for podman's tmpcopyup. It is called when all
// mounts are made, and the process's root is still the host's, so that the file systems are below the root in its view alone.
func (c *container) copyUp(pid int, mounts []spec.Mount) error {
	for _, m := range mounts {
		if !m.CopyUp {
			continue
		}
		if err := c.copyUpOne(pid, m.Target); err != nil {
			return fmt.Errorf("mounts /%s: tmpcopyup: %w", m.Target, err)
		}
	}
	return nil
}

func (c *container) copyUpOne(pid int, target string) error {
	from, err := openInRoot(c.record.Rootfs, target)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil // the mount point was made for the mount
	}
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := openInRoot(filepath.Join(fmt.Sprintf("/proc/%d/root", pid), c.record.Rootfs), target)
	if err != nil {
		return err
	}
	defer to.Close()
	return fs.WalkDir(from.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		return copyEntry(from, to, name, entry)
	})
}

// openInRoot opens a directory as a container sees it: links on the way stay below its root.
func openInRoot(root, target string) (*os.Root, error) {
	base, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", root, err)
	}
	defer unix.Close(base)
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	dir, err := unix.Openat2(base, target, &how)
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", target, err)
	}
	defer unix.Close(dir)
	return os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", dir))
}

// copyEntry copies a directory, a file or a link, with its owner and mode. What else there may be, such as a socket, means nothing elsewhere.
func copyEntry(from, to *os.Root, name string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: %w", name, errors.ErrUnsupported)
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		err = to.Mkdir(name, 0o700)
	case fs.ModeSymlink:
		var target string
		if target, err = from.Readlink(name); err == nil {
			err = to.Symlink(target, name)
		}
	case 0:
		err = copyFile(from, to, name)
	default:
		return nil
	}
	if err == nil {
		err = to.Lchown(name, int(st.Uid), int(st.Gid))
	}
	if err == nil && info.Mode().Type() != fs.ModeSymlink { // after the owner, whose change takes set-user-id bits away
		err = to.Chmod(name, info.Mode())
	}
	return err
}

func copyFile(from, to *os.Root, name string) error {
	in, err := from.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := to.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
