package launch

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// offspring is what a child is to be when it begins.
type offspring struct {
	flags uint64 // of clone3(2)
	group int    // the v2 control group to start in, or -1
	// within is a pidfd of a process in whose pid namespace it begins, or -1.
	within int
	// here makes it without the forker.
	here func() (pid, pidfd int, err error)
}

// spawn starts a child on the program. build writes that for the numbers which the descriptors that the child is to have from
// 0 on, and its control socket, have when it begins.
func (p *program) spawn(passed []*os.File, build func(passed []int, ctl int) error, child offspring) (*Process, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	var moved []int // the child's ends, out of the way of the numbers that it will give them
	defer func() {
		for _, fd := range append(moved, pair[1]) {
			unix.Close(fd)
		}
	}()
	var wanted []int
	for _, f := range passed {
		wanted = append(wanted, int(f.Fd()))
	}
	for _, fd := range append(wanted, pair[1]) {
		high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, p.control+1)
		if err != nil {
			unix.Close(pair[0])
			return nil, fmt.Errorf("child's descriptors: %w", err)
		}
		moved = append(moved, high)
	}
	numbers, clone := moved, child.here
	if p.region != nil {
		numbers = forkerNumbers(len(moved))
		clone = func() (pid, pidfd int, err error) {
			return p.region.forker.fork(p.table, p.control, child, moved)
		}
	}
	if err := build(numbers[:len(wanted)], numbers[len(wanted)]); err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("build launch table: %w", err)
	}
	if err := unix.SetNonblock(pair[0], true); err != nil {
		unix.Close(pair[0])
		return nil, fmt.Errorf("control socket: %w", err)
	}
	ctl := os.NewFile(uintptr(pair[0]), "control")
	pid, pidfd, err := clone()
	p.release()
	if err != nil && pid == 0 {
		return nil, errors.Join(err, ctl.Close())
	}
	process := &Process{pid: pid, pidfd: os.NewFile(uintptr(pidfd), "pidfd"), control: ctl, names: p.names}
	if err != nil {
		process.Abort()
		return nil, err
	}
	return process, nil
}
