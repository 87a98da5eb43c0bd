package launch

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

//go:linkname beforeFork syscall.runtime_BeforeFork
func beforeFork()

//go:linkname afterFork syscall.runtime_AfterFork
func afterFork()

//go:linkname afterForkInChild syscall.runtime_AfterForkInChild
func afterForkInChild()

// cloneArgs is struct clone_args of linux/sched.h, with the place for the pidfd behind it.
type cloneArgs struct {
	flags, pidfd, childTID, parentTID, exitSignal, stack, stackSize, tls, setTID, setTIDSize, cgroup uint64

	result int32 // the pidfd
}

// cloneArgsSize is without result.
const cloneArgsSize = 11 * 8

// report is what the child tells the parent on the control socket, in this layout: the number of a step that failed
// and the error, or stepReady.
type report struct {
	step, errno uint64
}

const (
	stepReady   = ^uint64(0)
	stepMounted = ^uint64(0) - 1 // and waits for a byte
	stepConsole = ^uint64(0) - 2 // and has sent a descriptor with it
	reportSize  = 16
	// control is the child's descriptor of the control socket, if the program gets no descriptors but its stdio.
	control = 3
	// exitFailed is the exit status of a child that couldn't run the program; nobody sees it but a debugger.
	exitFailed = 126
)

// fork clones a child that walks t. groupFD is a v2 control group to start in, or -1. It gives the child's id and its
// pidfd, which is non-blocking.
func fork(t *table, ctl int, flags uint64, groupFD int) (pid, pidfd int, err error) {
	ca := &cloneArgs{flags: flags | unix.CLONE_PIDFD, exitSignal: uint64(unix.SIGCHLD)}
	ca.pidfd = uint64(uintptr(unsafe.Pointer(&ca.result)))
	if groupFD >= 0 {
		ca.flags |= unix.CLONE_INTO_CGROUP
		ca.cgroup = uint64(groupFD)
	}
	regs := new([registers]uintptr)
	failure := new(report)
	syscall.ForkLock.Lock()
	child, errno := clone(ca, &t.steps[0], uintptr(len(t.steps)), regs, failure, uintptr(ctl))
	syscall.ForkLock.Unlock()
	runtime.KeepAlive(t)
	runtime.KeepAlive(ca)
	if errno != 0 {
		return 0, -1, cloneError(errno)
	}
	if err := unix.SetNonblock(int(ca.result), true); err != nil {
		return int(child), int(ca.result), fmt.Errorf("pidfd: %w", err)
	}
	return int(child), int(ca.result), nil
}

// cloneError says what to do about a refused clone.
func cloneError(errno syscall.Errno) error {
	switch errno {
	case unix.ENOSPC, unix.EUSERS:
		return fmt.Errorf("make namespaces: %w: a limit in /proc/sys/user, such as max_user_namespaces, is reached", errno)
	case unix.EPERM:
		return fmt.Errorf("make namespaces: %w: the supervisor must be root, and user namespaces must be allowed", errno)
	case unix.ENOSYS, unix.EINVAL:
		return fmt.Errorf("make namespaces: %w: the kernel lacks one of the seven namespaces", errno)
	default:
		return fmt.Errorf("make namespaces: %w", errno)
	}
}

// clone forks. In the child it does not return.
//
//go:norace
//go:noinline
//go:nocheckptr
func clone(ca *cloneArgs, first *step, n uintptr, regs *[registers]uintptr, failure *report, ctl uintptr) (uintptr, syscall.Errno) {
	beforeFork()
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(ca)), cloneArgsSize, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		afterForkInChild()
		walk(first, n, regs, failure, ctl)
	}
	afterFork()
	return pid, errno
}

// walk is all that runs in the child. Nothing here may allocate, grow the stack, lock or be preempted: the other
// threads of the parent do not exist in this process, and whatever they held is held for ever.
//
//go:norace
//go:noinline
//go:nosplit
//go:nocheckptr
func walk(first *step, n uintptr, regs *[registers]uintptr, failure *report, ctl uintptr) {
	var a [6]uintptr
	for i := uintptr(0); i < n; {
		s := (*step)(unsafe.Add(unsafe.Pointer(first), i*unsafe.Sizeof(*first)))
		i++
		if s.nr == callJump {
			i = uintptr(s.to)
			continue
		}
		if s.nr == callLoad {
			regs[s.out&(registers-1)] = uintptr(*s.word)
			continue
		}
		if s.nr == callStore {
			*s.word = int32(regs[s.from[0]&(registers-1)])
			continue
		}
		for j := 0; j < 6; j++ {
			a[j] = s.arg[j]
			if s.from[j] != 0 {
				a[j] = regs[s.from[j]&(registers-1)]
			}
		}
		r, _, e := syscall.RawSyscall6(s.nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if e != 0 {
			errno := uint16(e)
			if errno == uint16(unix.EAGAIN) && s.again > 0 {
				s.again-- // in this process's copy
				i--
				continue
			}
			if errno == s.tolerated[0] || errno == s.tolerated[1] || errno == s.tolerated[2] || errno == s.tolerated[3] {
				if s.to != 0 {
					i = uintptr(s.to)
				}
				continue
			}
			failure.step, failure.errno = uint64(i-1), uint64(errno)
			syscall.RawSyscall6(unix.SYS_WRITE, ctl, uintptr(unsafe.Pointer(failure)), reportSize, 0, 0, 0)
			break
		}
		if s.must && r == 0 {
			break
		}
		if s.out != 0 {
			regs[s.out&(registers-1)] = r
		}
	}
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, exitFailed, 0, 0, 0, 0, 0)
	}
}
