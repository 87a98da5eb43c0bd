package memfs

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// Errors of this package.
var (
	// ErrFull is returned when the content would exceed the size given to New.
	ErrFull = errors.New("in-memory file system is full")
	// ErrName is returned when a file's name is not one plain path element.
	ErrName = errors.New("not usable as a file name")
)

// FS is a file system in memory, attached nowhere.
type FS struct {
	fd   int   // the mount
	left int64 // bytes
}

// maxFiles bounds the inodes; the root is one of them.
const maxFiles = 4096

// New makes an empty file system of at most size bytes, whose root directory has the given mode and host ids. The
// mount is nosuid, nodev and, unless AllowExec is called, noexec.
func New(size int64, mode, uid, gid uint32) (*FS, error) {
	return NewLabelled("", size, mode, uid, gid)
}

// NewLabelled is New for a file system in which everything has a label of SELinux.
func NewLabelled(label string, size int64, mode, uid, gid uint32) (*FS, error) {
	return NewNamed("", label, size, mode, uid, gid)
}

// NewNamed is NewLabelled for one that has a name in mount tables, as the source of its mounts.
func NewNamed(name, label string, size int64, mode, uid, gid uint32) (*FS, error) {
	fd, err := create("tmpfs", name, label, size, mode)
	if errors.Is(err, unix.EINVAL) { // no noswap before 6.4
		fd, err = create("ramfs", name, label, size, mode)
	}
	if err != nil {
		return nil, fmt.Errorf("in-memory file system: %w", err)
	}
	if err := unix.Fchownat(fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("own in-memory file system: %w", err)
	}
	return &FS{fd: fd, left: size}, nil
}

func create(fstype, name, label string, size int64, mode uint32) (int, error) {
	fs, err := unix.Fsopen(fstype, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	options := [][2]string{{"mode", strconv.FormatUint(uint64(mode), 8)}}
	if fstype == "tmpfs" {
		if err := unix.FsconfigSetFlag(fs, "noswap"); err != nil { // I1
			return -1, err
		}
		// A page per file and some slack, since the kernel counts whole pages.
		options = append(options, [2]string{"size", strconv.FormatInt(size+maxFiles*4096, 10)}, [2]string{"nr_inodes", strconv.Itoa(maxFiles)})
	}
	if label != "" {
		options = append(options, [2]string{"context", label})
	}
	if name != "" {
		options = append(options, [2]string{"source", name})
	}
	for _, o := range options {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, err
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

// FD is the mount's file descriptor. It stays the FS's.
func (f *FS) FD() int { return f.fd }

// Write makes the file name with data as its content, and the given mode and host ids. It keeps no copy of data.
func (f *FS) Write(name string, data []byte, mode, uid, gid uint32) error {
	if !PlainName(name) {
		return fmt.Errorf("%w: %.64q", ErrName, name)
	}
	if int64(len(data)) > f.left {
		return fmt.Errorf("write %s: %w", name, ErrFull)
	}
	if err := f.writeAlone(name, data, mode, uid, gid); err != nil {
		return err
	}
	f.left -= int64(len(data))
	return nil
}

// writeAlone writes while no child is forked: it would hold the file open for writing for a moment, and Seal would fail with EBUSY. Nobody
// else has the file system yet, and can make that wait.
func (f *FS) writeAlone(name string, data []byte, mode, uid, gid uint32) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	return f.write(name, data, mode, uid, gid)
}

func (f *FS) write(name string, data []byte, mode, uid, gid uint32) error {
	fd, err := unix.Openat(f.fd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("create %s in memory: %w", name, err)
	}
	defer unix.Close(fd)
	for rest := data; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("write %s in memory: %w", name, err)
		}
		rest = rest[n:]
	}
	runtime.KeepAlive(data)
	if err := errors.Join(unix.Fchown(fd, int(uid), int(gid)), unix.Fchmod(fd, mode&0o777)); err != nil {
		return fmt.Errorf("own %s in memory: %w", name, err)
	}
	return nil
}

// Mkdir makes the directory name with the given mode and host ids.
func (f *FS) Mkdir(name string, mode, uid, gid uint32) error {
	if !PlainName(name) {
		return fmt.Errorf("%w: %.64q", ErrName, name)
	}
	err := unix.Mkdirat(f.fd, name, mode)
	if err == nil {
		err = unix.Fchownat(f.fd, name, int(uid), int(gid), unix.AT_SYMLINK_NOFOLLOW)
	}
	if err == nil {
		err = unix.Fchmodat(f.fd, name, mode, 0)
	}
	if err != nil {
		return fmt.Errorf("make %s in memory: %w", name, err)
	}
	return nil
}

// AllowExec lets programs on the file system be run.
func (f *FS) AllowExec() error {
	attr := &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(f.fd, "", unix.AT_EMPTY_PATH, attr); err != nil {
		return fmt.Errorf("let programs in memory be run: %w", err)
	}
	return nil
}

// Seal makes the mount read-only, I2.
func (f *FS) Seal() error {
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(f.fd, "", unix.AT_EMPTY_PATH, attr); err != nil {
		return fmt.Errorf("seal in-memory file system: %w", err)
	}
	return nil
}

// Attach shows the mount at a directory, where it stays after Close, until it is unmounted.
func (f *FS) Attach(path string) error {
	if err := unix.MoveMount(f.fd, "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("attach in-memory file system: %w", err)
	}
	return nil
}

// Close gives up the mount. If it was attached nowhere, its content is freed.
func (f *FS) Close() {
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
}

// PlainName reports whether name is one path element: not empty, not "." or "..", no slash, no NUL, at most 255 bytes.
func PlainName(name string) bool {
	if name == "" || name == "." || name == ".." || len(name) > 255 {
		return false
	}
	for i := range len(name) {
		if name[i] == '/' || name[i] == 0 {
			return false
		}
	}
	return true
}
