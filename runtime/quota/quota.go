package quota

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrUnsupported is returned when the file system of a directory has no project quotas in force; the error says so of which one.
var ErrUnsupported = errors.New("what is written can't be bounded")

// Constants of linux/quota.h and linux/dqblk_xfs.h.
const (
	projects    = 2 // PRJQUOTA
	setQuota    = 0x800008
	getState    = 'X'<<8 + 5 // Q_XGETQSTAT
	enforced    = 1 << 5     // FS_QUOTA_PDQ_ENFD
	limitBlocks = 1          // QIF_BLIMITS
	limitInodes = 4          // QIF_ILIMITS
	blockSize   = 1024       // QIF_DQBLKSIZE
)

// ownInodes are what overlayfs makes beside the directories.
const ownInodes = 16

// inodeBytes is how much of a limit an inode stands for: a file that is not empty takes a block of as much anyway.
const inodeBytes = 4096

// state is struct fs_quota_stat.
type state struct {
	version int8
	_       int8
	flags   uint16
	_       [76]byte
}

// limits is struct if_dqblk.
type limits struct {
	hardBlocks, softBlocks, space  uint64
	hardInodes, softInodes, inodes uint64
	blockTime, inodeTime           uint64
	valid                          uint32
	_                              uint32
}

// attributes is struct fsxattr.
type attributes struct {
	flags, extent, extents, project, copyExtent uint32
	_                                           [8]byte
}

// Requests of linux/fs.h for attributes, and the flag by which files get the project of their directory.
const (
	getAttributes = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes = 0x401c5820 // FS_IOC_FSSETXATTR
	inherit       = 0x200      // FS_XFLAG_PROJINHERIT
)

// Check returns nil when Bound works for directories below dir, and else an error that says why not and what to do.
func Check(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return check(f)
}

func check(f *os.File) error {
	var s state
	err := control(f, getState, 0, unsafe.Pointer(&s))
	if err == nil && s.flags&enforced != 0 {
		return nil
	}
	if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ESRCH) && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("ask for the quotas of %s: %w", f.Name(), err)
	}
	return fmt.Errorf("%w: the file system of %s (%s) has no project quotas in force: it takes ext4 or xfs, mounted with the option prjquota",
		ErrUnsupported, f.Name(), kind(f))
}

// kind names the type of a file system.
func kind(f *os.File) string {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return "unknown"
	}
	switch int64(st.Type) {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlay"
	}
	return fmt.Sprintf("type %#x", st.Type)
}

// Bound puts new, empty directories, which are on one file system, into a project that nothing else is in, and limits it to size bytes and a
// number of inodes to match. The id is not 0 (I2).
func Bound(id uint32, size int64, dirs ...string) error {
	if id == 0 || size <= 0 {
		return fmt.Errorf("limit of %d bytes for project %d: neither may be 0", size, id)
	}
	for _, dir := range dirs {
		if err := enter(id, dir); err != nil {
			return fmt.Errorf("bound what is written in %s: %w", filepath.Base(dir), err)
		}
	}
	f, err := os.Open(dirs[0])
	if err != nil {
		return err
	}
	defer f.Close()
	return limit(f, id, uint64(size+blockSize-1)/blockSize, uint64(size)/inodeBytes+ownInodes)
}

// enter puts a directory into a project.
func enter(id uint32, dir string) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := check(f); err != nil {
		return err
	}
	var a attributes
	if err := request(f, getAttributes, unsafe.Pointer(&a)); err != nil {
		return err
	}
	a.project, a.flags = id, a.flags|inherit
	return request(f, setAttributes, unsafe.Pointer(&a))
}

// Forget takes the limit of a project away. The directory is any on its file system.
func Forget(id uint32, dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return limit(f, id, 0, 0)
}

func limit(f *os.File, id uint32, blocks, inodes uint64) error {
	l := limits{hardBlocks: blocks, hardInodes: inodes, valid: limitBlocks | limitInodes}
	if err := control(f, setQuota, id, unsafe.Pointer(&l)); err != nil {
		return fmt.Errorf("limit project %d: %w", id, err)
	}
	return nil
}

// control is quotactl_fd for project quotas.
func control(f *os.File, command, id uint32, p unsafe.Pointer) error {
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, f.Fd(), uintptr(command<<8|projects), uintptr(id), uintptr(p), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func request(f *os.File, what uintptr, p unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), what, uintptr(p))
	if errno != 0 {
		return fmt.Errorf("attributes: %w", errno)
	}
	return nil
}
