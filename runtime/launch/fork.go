package launch

import (
	"fmt"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

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
	if groupFD >= 0 {
		ca.flags |= unix.CLONE_INTO_CGROUP
		ca.cgroup = uint64(groupFD)
	}
	regs := new([registers]uintptr)
	failure := new(report)
	syscall.ForkLock.Lock()
	child, errno := clone(ca, &t.code[0], uintptr(len(t.code)), regs, failure, uintptr(ctl))
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

// blockSignals blocks all signals of this thread, which the goroutine then has for itself, until allowSignals: a handler in the child would
// run on what it shares with nobody any more.
func blockSignals() (before unix.Sigset_t) {
	var all unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^uint64(0)
	}
	runtime.LockOSThread()
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before) // whose arguments are right
	return before
}

func allowSignals(before unix.Sigset_t) {
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	runtime.UnlockOSThread()
}

// clone forks. In the child it does not return. There all signals are blocked, and none is handled.
//
//go:norace
//go:noinline
//go:nocheckptr
func clone(ca *cloneArgs, first *uint64, n uintptr, regs *[registers]uintptr, failure *report, ctl uintptr) (uintptr, syscall.Errno) {
	ca.flags |= unix.CLONE_CLEAR_SIGHAND
	before := blockSignals()
	ca.pidfd = uint64(uintptr(unsafe.Pointer(&ca.result))) // here: what is called before may move the stack
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE3, uintptr(unsafe.Pointer(ca)), cloneArgsSize, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		walk(first, n, regs, failure, ctl)
	}
	allowSignals(before)
	return pid, errno
}

// walk is all that runs in the child. Nothing here may allocate, grow the stack, lock or be preempted: the other
// threads of the parent do not exist in this process, and whatever they held is held for ever. first is the first of n words of code.
//
//go:norace
//go:noinline
//go:nosplit
//go:nocheckptr
func walk(first *uint64, n uintptr, regs *[registers]uintptr, failure *report, ctl uintptr) {
	var a [6]uintptr
	again := 0
	for i := uintptr(0); i < n; {
		head := word(first, i)
		nr, args := uintptr(head&callMask), uintptr(head>>argsShift&argsMask)
		for j := uintptr(0); j < 6; j++ {
			if a[j] = 0; j >= args {
				continue
			}
			a[j] = uintptr(word(first, i+1+j))
			if from := head >> (fromShift + regBits*j) & (registers - 1); from != 0 {
				a[j] = regs[from]
			}
		}
		more := uint64(0)
		next := i + 1 + args
		if head>>moreShift&1 != 0 {
			more = word(first, next)
			next++
		}
		out := head >> outShift & (registers - 1)
		switch nr {
		case callJump:
			i = uintptr(more >> toShift)
			continue
		case callLoad:
			regs[out] = uintptr(*(*int32)(unsafe.Add(nil, a[0])))
			i = next
			continue
		case callStore:
			*(*int32)(unsafe.Add(nil, a[0])) = int32(a[1])
			i = next
			continue
		}
		r, _, e := syscall.RawSyscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
		if e != 0 {
			if e == unix.EAGAIN && nr == unix.SYS_OPENAT2 && again < lookups {
				again++
				continue
			}
			errno := uint64(e)
			if errno == more&0xff || errno == more>>8&0xff || errno == more>>16&0xff || errno == more>>24&0xff {
				if i = uintptr(more >> toShift); i == 0 {
					i = next
				}
				continue
			}
			failure.step, failure.errno = head>>numberShift, errno
			syscall.RawSyscall6(unix.SYS_WRITE, ctl, uintptr(unsafe.Pointer(failure)), reportSize, 0, 0, 0)
			break
		}
		if head&mustBit != 0 && r == 0 {
			break
		}
		if out != 0 {
			regs[out] = r
		}
		i, again = next, 0
	}
	for {
		syscall.RawSyscall6(unix.SYS_EXIT_GROUP, exitFailed, 0, 0, 0, 0, 0)
	}
}

// word is a word of the code. The child runs it, too.
//
//go:norace
//go:nosplit
//go:nocheckptr
func word(first *uint64, i uintptr) uint64 {
	return *(*uint64)(unsafe.Add(unsafe.Pointer(first), 8*i))
}
