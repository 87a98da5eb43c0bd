package memfs

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Draft is the name that a file has while Replace writes it.
const Draft = ".skep-draft"

// Reopen gives the file system of an attached mount, of which fd is the root directory, once more: as a mount that is writable and
// attached nowhere. The mount must be in the mount namespace of the calling thread; it stays as it is.
func Reopen(fd int) (*FS, error) {
	clone, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return nil, fmt.Errorf("open in-memory file system again: %w", err)
	}
	attr := &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(clone, "", unix.AT_EMPTY_PATH, attr); err != nil {
		unix.Close(clone)
		return nil, fmt.Errorf("write to in-memory file system again: %w", err)
	}
	return &FS{fd: clone}, nil
}

// Replace makes a file as Write does, in the place of the one that has its name, all at once (I4). What a replacement that was cut short
// left is gone then.
func (f *FS) Replace(name string, data []byte, mode, uid, gid uint32) error {
	if !PlainName(name) || name == Draft {
		return fmt.Errorf("%w: %.64q", ErrName, name)
	}
	if err := unix.Unlinkat(f.fd, Draft, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove draft of %s in memory: %w", name, err)
	}
	err := f.write(Draft, data, mode, uid, gid)
	if err == nil {
		err = unix.Renameat(f.fd, Draft, f.fd, name)
	}
	if err != nil {
		_ = unix.Unlinkat(f.fd, Draft, 0) // the next one tries again
		return fmt.Errorf("replace %s in memory: %w", name, err)
	}
	return nil
}

// Single gives a detached mount of one file, as the descriptor that the caller closes. The file system itself is shown over the root
// directory of the calling thread for that, which must have a mount namespace of its own that others see nothing of.
func (f *FS) Single(name string) (int, error) {
	if err := f.Attach("/"); err != nil {
		return -1, err
	}
	fd, err := unix.OpenTree(f.fd, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return -1, fmt.Errorf("open %s in memory: %w", name, err)
	}
	return fd, nil
}
