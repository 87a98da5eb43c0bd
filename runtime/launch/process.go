package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/spec"
)

// Exit is how a process ended.
type Exit struct {
	Code   int         // 0 to 255, or 128 + Signal
	Signal unix.Signal // or 0
	// Unknown says that the end is certain but not its kind: the process was not a child of this supervisor and the
	// kernel doesn't tell.
	Unknown bool
}

// Process is the first process of a container.
type Process struct {
	pid     int
	pidfd   *os.File
	control *os.File // or nil: started, or adopted
	mounts  *os.File // the mount namespace; nil if adopted
	adopted bool
	halted  atomic.Bool // Interrupt was called
	names   []string    // of the table's steps
	rlimits []spec.Rlimit
}

// Pid is the process's number on the host.
func (p *Process) Pid() int { return p.pid }

// send hands the descriptors over.
func (p *Process) send(fds []int) error {
	conn, err := p.control.SyscallConn()
	if err != nil {
		return err
	}
	rights := unix.UnixRights(fds...)
	var sent error
	err = conn.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), []byte{1}, rights, nil, unix.MSG_NOSIGNAL)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

// read gives the child's next report, and the descriptor that came with it or nil; no report when it closed the socket.
func read(ctx context.Context, control *os.File) (*report, *os.File, error) {
	stop := context.AfterFunc(ctx, func() { _ = control.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	conn, err := control.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	r, rights := &report{}, make([]byte, unix.CmsgSpace(4))
	buffer := unsafe.Slice((*byte)(unsafe.Pointer(r)), reportSize)
	var n, extra int
	var failed error
	err = conn.Read(func(fd uintptr) bool {
		n, extra, failed = receive(int(fd), buffer, rights, 0)
		return !errors.Is(failed, unix.EAGAIN)
	})
	err = errors.Join(err, failed)
	switch {
	case errors.Is(err, unix.ECONNRESET) || err == nil && n == 0:
		return nil, nil, nil
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		return nil, nil, fmt.Errorf("wait for container process: %w", context.Cause(ctx))
	case err != nil:
		return nil, nil, fmt.Errorf("wait for container process: %w", err)
	}
	f, err := descriptor(rights[:extra])
	if err == nil && n != reportSize {
		err = fmt.Errorf("report of %d bytes", n)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("wait for container process: %w", err)
	}
	return r, f, nil
}

// receive receives a message; none is the end. That the child has ended and left something unread comes before what it said. So may its
// end: Linux looks for a message first and for the end then, and what was said in between is there at the next call only (unix_dgram_recvmsg
// in net/unix/af_unix.c). So each is only believed when nothing comes after it.
func receive(fd int, buffer, rights []byte, flags int) (n, extra int, err error) {
	for range 3 {
		n, extra, _, _, err = unix.Recvmsg(fd, buffer, rights, unix.MSG_CMSG_CLOEXEC|flags)
		if ended := err == nil && n == 0; !ended && !errors.Is(err, unix.ECONNRESET) {
			break
		}
	}
	return n, extra, err
}

// reported returns what the child has said to have failed, if it has, and otherwise err: a child that is gone fails what is done for it, too.
func (p *Process) reported(err error) error {
	conn, connErr := p.control.SyscallConn()
	if connErr != nil {
		return err
	}
	r := &report{}
	n := 0
	var failure error
	connErr = conn.Control(func(fd uintptr) {
		n, _, failure = receive(int(fd), unsafe.Slice((*byte)(unsafe.Pointer(r)), reportSize), nil, unix.MSG_DONTWAIT)
	})
	if connErr != nil || failure != nil || n != reportSize || r.errno == 0 {
		return err
	}
	return failed(p.names, r)
}

// descriptor takes the one descriptor out of a control message, if there is one.
func descriptor(message []byte) (*os.File, error) {
	if len(message) == 0 {
		return nil, nil
	}
	fd, err := oneRight(message)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "terminal"), nil
}

// oneRight takes the one descriptor out of a control message.
func oneRight(message []byte) (int, error) {
	messages, err := unix.ParseSocketControlMessage(message)
	if err != nil || len(messages) != 1 {
		return -1, fmt.Errorf("%d control messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return -1, fmt.Errorf("%d descriptors: %w", len(fds), err)
	}
	return fds[0], nil
}

// awaitReady answers what the child reports on its way, until it is ready.
func (p *Process) awaitReady(ctx context.Context, job Job) error {
	for {
		r, f, err := read(ctx, p.control)
		switch {
		case err != nil:
			return err
		case r == nil:
			return ErrExited
		case r.step == stepReady:
			return nil
		case r.step == stepConsole && f != nil:
			if err := job.Console(f); err != nil {
				return fmt.Errorf("hand over the terminal: %w", err)
			}
		case r.step == stepMounted:
			if err := job.Mounted(ctx, p.pid); err != nil {
				return err
			}
			if _, err := p.control.Write([]byte{1}); err != nil {
				return ErrExited
			}
		default:
			return failed(p.names, r)
		}
	}
}

func failed(names []string, r *report) error {
	name := fmt.Sprintf("step %d", r.step)
	if r.step < uint64(len(names)) {
		name = names[r.step]
	}
	if name == makeNamespaces {
		return cloneError(unix.Errno(r.errno))
	}
	return &StepError{Step: name, Errno: unix.Errno(r.errno)}
}

// startTime bounds Start: from the word to the program's first instruction there is no waiting but for its file.
const startTime = 60 * time.Second

// Start lets the program run. It returns when execve has succeeded, or what went wrong; the process ends then by
// itself, and Wait tells. Start may be called once.
func (p *Process) Start(ctx context.Context) error {
	if p.control == nil {
		return errors.New("container process was started before")
	}
	defer p.closeControl()
	if err := p.setLimits(); err != nil {
		return err
	}
	return start(ctx, p.control, p.names)
}

// start gives the word on a control socket and waits for what comes of it.
func start(ctx context.Context, control *os.File, names []string) error {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if _, err := control.Write([]byte{1}); err != nil {
		return ErrExited
	}
	return awaitProgram(ctx, control, names)
}

// awaitProgram waits until the child runs the program, or says why it can't.
func awaitProgram(ctx context.Context, control *os.File, names []string) error {
	r, _, err := read(ctx, control)
	if err != nil {
		return err
	}
	if r != nil {
		return failed(names, r)
	}
	return nil
}

// Steps names the steps of the process's way to its program, for StartBy. It is nil once the program runs.
func (p *Process) Steps() []string { return p.names }

// StartBy lets the program of a container run that was created with a Starter, from any process. conn is a connection
// to that socket, which stays the caller's, and steps are the Process's. It is otherwise like Process.Start.
func StartBy(ctx context.Context, conn *os.File, steps []string) error {
	return start(ctx, conn, steps)
}

// setLimits sets the resource limits, from outside, since raising a hard limit takes rights on the host.
func (p *Process) setLimits() error {
	for _, r := range p.rlimits {
		if err := p.limit(r); err != nil {
			return fmt.Errorf("set resource limit %d: %w", r.Resource, err)
		}
	}
	return nil
}

// limit sets one resource limit. Where the supervisor itself may not go as high, which happens when it runs confined,
// the container gets the supervisor's limit: less is safe.
func (p *Process) limit(r spec.Rlimit) error {
	want := unix.Rlimit{Cur: r.Soft, Max: r.Hard}
	err := unix.Prlimit(p.pid, r.Resource, &want, nil)
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	var have unix.Rlimit
	if err := unix.Prlimit(p.pid, r.Resource, nil, &have); err != nil {
		return err
	}
	want.Max = min(want.Max, have.Max)
	want.Cur = min(want.Cur, want.Max)
	return unix.Prlimit(p.pid, r.Resource, &want, nil)
}

// Unstarted gives what starting the process takes, for Restore of a process that another program in this very process
// adopts: a copy of its control socket, which is the caller's, and its resource limits. The socket is nil if the process was
// started.
func (p *Process) Unstarted() (*os.File, []spec.Rlimit, error) {
	if p.control == nil {
		return nil, nil, nil
	}
	conn, err := p.control.SyscallConn()
	if err != nil {
		return nil, nil, err
	}
	fd := -1
	var failed error
	err = conn.Control(func(control uintptr) { fd, failed = unix.FcntlInt(control, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, failed); err != nil {
		return nil, nil, fmt.Errorf("copy control socket: %w", err)
	}
	return os.NewFile(uintptr(fd), "control"), p.rlimits, nil
}

// Restore makes an adopted process one that can be started, with what Unstarted gave. Control becomes the process's.
func (p *Process) Restore(control *os.File, rlimits []spec.Rlimit) {
	p.control, p.rlimits = control, rlimits
}

// keepMounts makes the process's mounts stay when it ends.
func (p *Process) keepMounts() error {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/mnt", p.pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open mount namespace: %w", err)
	}
	p.mounts = os.NewFile(uintptr(fd), "mounts")
	return nil
}

// ReleaseMounts lets the mounts go of a process that has ended, and waits until they are gone. Without it the kernel would take them down before it told
// of the end. It may be called again.
func (p *Process) ReleaseMounts() {
	if p.mounts != nil {
		p.mounts.Close()
	}
}

func (p *Process) closeControl() {
	if p.control != nil {
		p.control.Close()
		p.control, p.names, p.rlimits = nil, nil, nil // of no more use, for as long as the container runs
	}
}

// Signal sends a signal. It gives os.ErrProcessDone if the process has ended.
func (p *Process) Signal(sig unix.Signal) error {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := conn.Control(func(fd uintptr) { sent = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return err
	}
	if errors.Is(sent, unix.ESRCH) {
		return os.ErrProcessDone
	}
	if sent != nil {
		return fmt.Errorf("signal process %d: %w", p.pid, sent)
	}
	return nil
}

// SyscallConn gives access to the descriptor that names the process; see pidfd_open(2). It can be read from (in the sense
// of poll) when Wait will not block for long.
func (p *Process) SyscallConn() (syscall.RawConn, error) { return p.pidfd.SyscallConn() }

// Wait blocks until the process has ended and reaps it. No thread is held meanwhile.
func (p *Process) Wait() (Exit, error) {
	exit, err := p.Await()
	if err == nil {
		p.Reap()
	}
	return exit, err
}

// Await is Wait, but leaves the process to be reaped by Reap: until then, whoever becomes its parent when this process
// ends can learn how it ended.
func (p *Process) Await() (Exit, error) {
	if p.adopted && !p.child() {
		return p.waitAdopted()
	}
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return Exit{}, err
	}
	var exit Exit
	var failed error
	err = conn.Read(func(uintptr) bool {
		var done bool
		exit, done, failed = p.look()
		return done || failed != nil
	})
	if err := errors.Join(err, failed); err != nil {
		return Exit{}, fmt.Errorf("wait for process %d: %w", p.pid, err)
	}
	return exit, nil
}

// childInfo is what waitid(2) fills in of siginfo_t, as 64-bit Linux has it.
type childInfo struct {
	signo, errno, code, _ int32
	pid                   int32
	uid                   uint32
	status                int32
	_                     [100]byte
}

// cldExited is the code of a child that ended by itself (CLD_EXITED).
const cldExited = 1

// look says whether a child has ended, and how, without reaping it.
func (p *Process) look() (exit Exit, done bool, err error) {
	var info childInfo
	const options = unix.WEXITED | unix.WNOHANG | unix.WNOWAIT
	err = unix.Waitid(unix.P_PID, p.pid, (*unix.Siginfo)(unsafe.Pointer(&info)), options, nil)
	switch {
	case errors.Is(err, unix.EINTR):
		return Exit{}, false, nil
	case err != nil || int(info.pid) != p.pid:
		return Exit{}, false, err
	case info.code == cldExited:
		return Exit{Code: int(info.status) & 0xff}, true, nil
	default:
		return Exit{Code: 128 + int(info.status), Signal: unix.Signal(info.status)}, true, nil
	}
}

// Reap reaps a child that Await said has ended. For another's child it does nothing.
func (p *Process) Reap() {
	// Another's child is refused.
	_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
}

// ExitOf reads the status of wait4(2).
func ExitOf(status unix.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{Code: 128 + int(status.Signal()), Signal: status.Signal()}
	}
	return Exit{Code: status.ExitStatus()}
}

// Close gives up the handles. The process goes on, unless it was never started: then it ends (I5).
func (p *Process) Close() {
	p.closeControl()
	p.ReleaseMounts()
	p.pidfd.Close()
}

// Abort kills a process that is of no use, waits for its end, and closes it.
func (p *Process) Abort() {
	// A child that is gone already is as good as killed, and Wait can't fail for a child that wasn't waited for.
	_ = p.Signal(unix.SIGKILL)
	_, _ = p.Wait()
	p.Close()
}

// StartTime gives when a process started, in clock ticks since the boot: with its number that names a process for as
// long as the machine runs.
func StartTime(pid int) (uint64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("start time of process %d: %w", pid, err)
	}
	// The name, field 2, may contain anything but ends with the last parenthesis. The start time is field 22.
	_, rest, ok := cutLast(string(text), ')')
	fields := strings.Fields(rest)
	if !ok || len(fields) < 20 {
		return 0, fmt.Errorf("start time of process %d: malformed stat", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

func cutLast(s string, sep byte) (before, after string, found bool) {
	if i := strings.LastIndexByte(s, sep); i >= 0 {
		return s[:i], s[i+1:], true
	}
	return s, "", false
}

// Adopt takes over the first process of a container that another supervisor started. It gives os.ErrProcessDone if
// that has ended.
func Adopt(pid int, started uint64) (*Process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if errors.Is(err, unix.ESRCH) {
		return nil, os.ErrProcessDone
	}
	if err != nil {
		return nil, fmt.Errorf("adopt process %d: %w", pid, err)
	}
	p := &Process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd"), adopted: true}
	// The handle names whatever has the number now; if that started when ours did, it is ours.
	now, err := StartTime(pid)
	if err != nil || now != started {
		p.Close()
		return nil, os.ErrProcessDone
	}
	return p, nil
}

// child reports whether an adopted process is a child of this process after all: that is so when a supervisor replaced
// itself by execve.
func (p *Process) child() bool {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return false
	}
	waitable := false
	err = conn.Control(func(fd uintptr) {
		waitable = unix.Waitid(unix.P_PIDFD, int(fd), nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil) == nil
	})
	return err == nil && waitable
}

// adoptedCheck is how often an adopted process is looked at beside the kernel's wake-ups: between its end and its
// reaping by another, some kernels give no second one.
const adoptedCheck = time.Second

// Interrupt ends a Wait under way and all later ones for a process that is not a child, within a second. Close must not
// be called while something else uses the descriptor; this may.
func (p *Process) Interrupt() { p.halted.Store(true) }

// waitAdopted waits for a process that isn't a child of this one.
func (p *Process) waitAdopted() (Exit, error) {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return Exit{}, err
	}
	for {
		if p.halted.Load() {
			return Exit{}, ErrInterrupted
		}
		var exit Exit
		if err := p.pidfd.SetReadDeadline(time.Now().Add(adoptedCheck)); err != nil {
			return Exit{}, err
		}
		err := conn.Read(func(fd uintptr) bool {
			var done bool
			exit, done = reapedElsewhere(int(fd))
			return done
		})
		if err == nil {
			return exit, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return Exit{}, fmt.Errorf("wait for adopted process %d: %w", p.pid, err)
		}
	}
}

// reapedElsewhere asks the kernel how a process ended, which it tells from 6.15 on, once the process was reaped.
func reapedElsewhere(fd int) (Exit, bool) {
	// The order matters: a process that is gone when asked was reaped before the kernel is asked for its exit.
	gone := errors.Is(unix.PidfdSendSignal(fd, 0, nil, 0), unix.ESRCH)
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	err := unix.IoctlPidfdInfo(fd, &info)
	if err == nil && info.Mask&unix.PIDFD_INFO_EXIT != 0 {
		return ExitOf(unix.WaitStatus(info.Exit_code)), true
	}
	return Exit{Unknown: true}, gone
}
