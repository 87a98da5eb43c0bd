// Package console makes terminals inside containers, and hands terminals to who looks after them.
//
// A terminal is made in the container's own file system of terminals, so that programs there find themselves at a
// /dev/pts/N that they can see. No path that an image could redirect is followed.
//
// Source: ioctl_tty(2), pts(4); for Send, runc's docs/terminals.md.
package console

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Group is the group of terminals inside a container, as everywhere.
const Group = 5

// devptsMagic is the type of the file system of terminals (linux/magic.h).
const devptsMagic = 0x1cd1

// terminalMode lets the user read and write, and the group of terminals write.
const terminalMode = 0o620

// ErrNone is returned when a container has no file system of terminals where it belongs.
var ErrNone = errors.New("/dev/pts/ptmx of the container is not what it should be")

// Open makes a terminal in the devpts of the container whose root directory is root, so that the container sees its own
// /dev/pts/N and no path of the host. The terminal belongs to uid and gid, in ids of the host. The caller closes both.
func Open(root int, uid, gid uint32, rows, columns uint16) (master, slave *os.File, err error) {
	master, err = openMaster(root)
	if err != nil {
		return nil, nil, err
	}
	slave, err = openSlave(master, uid, gid)
	if err == nil {
		err = resize(master, rows, columns)
	}
	if err != nil {
		master.Close()
		if slave != nil {
			slave.Close()
		}
		return nil, nil, err
	}
	return master, slave, nil
}

// openMaster opens ptmx. It is looked at before it is opened: opening something else could have effects, or never end.
func openMaster(root int) (*os.File, error) {
	const path = "dev/pts/ptmx"
	at, err := unix.Openat2(root, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, fmt.Errorf("open /%s: %w", path, err)
	}
	defer unix.Close(at)
	var st unix.Stat_t
	var fs unix.Statfs_t
	if err := errors.Join(unix.Fstat(at, &st), unix.Fstatfs(at, &fs)); err != nil {
		return nil, fmt.Errorf("look at /%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(5, 2) || fs.Type != devptsMagic {
		return nil, ErrNone
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", at), unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /%s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

// openSlave opens the other side of a terminal, by its master and not by a path (ioctl_tty(2), TIOCGPTPEER).
func openSlave(master *os.File, uid, gid uint32) (*os.File, error) {
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("unlock terminal: %w", err)
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, master.Fd(), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return nil, fmt.Errorf("open terminal: %w", errno)
	}
	slave := os.NewFile(fd, "terminal")
	err := unix.Fchown(int(fd), int(uid), int(gid))
	if err == nil {
		err = unix.Fchmod(int(fd), terminalMode)
	}
	if err != nil {
		slave.Close()
		return nil, fmt.Errorf("give terminal to its user: %w", err)
	}
	return slave, nil
}

// resize sets the size of a terminal's window. Zeros leave it unknown, as it begins.
func resize(master *os.File, rows, columns uint16) error {
	if rows == 0 && columns == 0 {
		return nil
	}
	err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns})
	if err != nil {
		return fmt.Errorf("set size of terminal: %w", err)
	}
	return nil
}
