package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/spec"
)

// ExecJob is one more process for a running container. Exec keeps nothing of it.
type ExecJob struct {
	// Plan has the process, its filter and the rest of what the container's first process was given: what only a new
	// container needs of it, such as mounts, is not looked at.
	Plan *spec.Plan
	// Group is the container's control group; it stays the caller's.
	Group *cgroup.Group
	// Stdio are the descriptors for standard input, output and error; they stay the caller's.
	Stdio [3]*os.File
	// Terminal says that Stdio is a terminal, which is to be the controlling one of the process.
	Terminal bool
	// Program, if not nil, is run instead of a program of the container. It stays the caller's. Such a process is not in the
	// container's pid namespace: nothing in the container can see, stop or trace it. Group may be nil for it, and then it is in that
	// of the launcher, and is not halted with the container.
	Program *os.File
}

// group gives the descriptor of the group to start in, or -1.
func (j ExecJob) group() int {
	if j.Group == nil {
		return -1
	}
	return j.Group.FD()
}

// Exec runs a program in the container whose first process is first: in its namespaces and its control group, and with no
// right that the plan doesn't give. It returns once the program runs, or a *StepError if it can't be run. The caller waits
// for the Process and closes it.
//
// The child is in the container's namespaces before its execve, with a copy of the memory of whoever forked it. It can't be looked
// into from there: it is not dumpable, and its memory belongs to the user namespace of the host, where nobody in the
// container has a capability (ptrace(2), "Ptrace access mode checking").
func (l *Launcher) Exec(ctx context.Context, first *Process, job ExecJob) (*Process, error) {
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if r := l.forker.take(); r != nil {
		if p, err := l.exec(ctx, first, job, r); !errors.Is(err, errForker) {
			return p, err
		}
	}
	return l.exec(ctx, first, job, nil)
}

// exec does what Exec does, with the forker if there is a region for the table.
func (l *Launcher) exec(ctx context.Context, first *Process, job ExecJob, r *region) (*Process, error) {
	prog := &program{table: newTable(r), plan: job.Plan, control: control}
	defer prog.release()
	var entrances []int
	var err error
	if job.Group != nil {
		if entrances, err = job.Group.Entrances(); err != nil {
			return nil, err
		}
		defer closeAll(entrances)
	}
	prog.fds = make([]int32, 1+len(entrances))
	var p *Process
	err = first.withPidfd(func(pidfd int) error {
		join, err := differing(first.pid, pidfd)
		if err != nil {
			return err
		}
		build := func(passed []int, ctl int) error {
			return prog.buildExec(passed, ctl, join&^unix.CLONE_NEWPID, job.Terminal)
		}
		passed, within := job.Stdio[:], pidfd
		if job.Program != nil {
			passed = append(passed, job.Program)
			prog.control = ownProgram + 1
		}
		if job.Program != nil || join&unix.CLONE_NEWPID == 0 {
			within = -1
		}
		p, err = prog.spawn(passed, build, offspring{group: job.group(), within: within, here: func() (pid, child int, err error) {
			err = inPIDNamespace(within, func() (err error) {
				pid, child, err = fork(prog.table, prog.control, 0, job.group())
				return err
			})
			return pid, child, err
		}})
		if err != nil {
			return err
		}
		return p.admit(job, append([]int{pidfd}, entrances...))
	})
	if err == nil {
		err = awaitProgram(ctx, p.control, p.names)
		p.closeControl()
	}
	if err != nil && p != nil {
		p.Abort()
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

// withPidfd lends the pidfd.
func (p *Process) withPidfd(f func(pidfd int) error) error {
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return os.ErrProcessDone // closed, because it has ended
	}
	return failed
}

// namespaceFiles are those in /proc/PID/ns, with the flags that setns takes for them.
func namespaceFiles() map[string]int {
	return map[string]int{
		"user": unix.CLONE_NEWUSER, "mnt": unix.CLONE_NEWNS, "pid": unix.CLONE_NEWPID, "ipc": unix.CLONE_NEWIPC,
		"uts": unix.CLONE_NEWUTS, "net": unix.CLONE_NEWNET, "cgroup": unix.CLONE_NEWCGROUP,
	}
}

// differing gives the flags of the namespaces that the process doesn't share with the thread that asks. To join one's own user
// namespace again is refused by the kernel.
func differing(pid, pidfd int) (int, error) {
	flags := 0
	for name, flag := range namespaceFiles() {
		var own, theirs unix.Stat_t
		if err := unix.Stat("/proc/thread-self/ns/"+name, &own); err != nil {
			return 0, fmt.Errorf("look at %s namespace: %w", name, err)
		}
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, name), &theirs); err != nil {
			return 0, os.ErrProcessDone
		}
		if own.Dev != theirs.Dev || own.Ino != theirs.Ino {
			flags |= flag
		}
	}
	// While it lives, its number was its own.
	if unix.PidfdSendSignal(pidfd, 0, nil, 0) != nil {
		return 0, os.ErrProcessDone
	}
	return flags, nil
}

// inPIDNamespace calls f on a thread whose children begin in the process's pid namespace: a process can't change its own.
// While the thread is locked, the Go runtime clones no thread from it.
// With -1 instead of a pidfd it is the one that they would begin in anyway.
func inPIDNamespace(pidfd int, f func() error) error {
	if pidfd < 0 {
		return f()
	}
	own, err := unix.Open("/proc/self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open pid namespace: %w", err)
	}
	defer unix.Close(own)
	done := make(chan error, 1)
	go func() { // a goroutine of its own: if the way back fails, its thread ends with it
		runtime.LockOSThread()
		if err := unix.Setns(pidfd, unix.CLONE_NEWPID); err != nil {
			runtime.UnlockOSThread()
			done <- joinError(err)
			return
		}
		err := f()
		if unix.Setns(own, unix.CLONE_NEWPID) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// joinError words a failing setns.
func joinError(err error) error {
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return fmt.Errorf("join pid namespace: %w", err)
}

// admit gives the waiting child what it can't have of its own right, and then what it waits for: the container's pidfd, and the entrances to its
// control group.
func (p *Process) admit(job ExecJob, fds []int) error {
	if !job.Plan.InheritScore {
		if err := writeProc(p.pid, "oom_score_adj", strconv.Itoa(job.Plan.OOMScoreAdj)); err != nil {
			return err
		}
	}
	p.rlimits = job.Plan.Process.Rlimits
	if err := p.setLimits(); err != nil {
		return err
	}
	if err := p.send(fds); err != nil {
		return fmt.Errorf("hand over the container: %w", err)
	}
	return nil
}

// buildExec writes the table of a process that joins the namespaces in join.
func (p *program) buildExec(passed []int, ctl, join int, terminal bool) error {
	p.isolate(passed, ctl)
	p.receive("receive the container", &p.fds)
	p.enter(p.fds[1:])
	p.labels()
	container := p.received(0)
	if join != 0 {
		p.call("join namespaces", unix.SYS_SETNS, container.arg(), num(join))
	}
	p.close(container)
	p.becomeRoot()
	// Joining made the process dumpable, where the host's fs.suid_dumpable says so.
	p.call("protect memory", unix.SYS_PRCTL, num(unix.PR_SET_DUMPABLE), num(0), num(0), num(0), num(0))
	if terminal {
		p.call("controlling terminal", unix.SYS_IOCTL, num(0), num(unix.TIOCSCTTY), num(0))
	}
	p.root = p.result("open root", unix.SYS_OPENAT, cwd(), p.str("/"), num(openDir|unix.O_CLOEXEC), num(0))
	p.workDir = p.root
	if dir := p.plan.Process.Cwd; dir != "." {
		request, size := p.resolve(openDir, 0, resolveInRoot)
		p.workDir = p.result("working directory /"+dir, unix.SYS_OPENAT2, p.root.arg(), p.str(dir), request, size)
	}
	p.credentials()
	if len(passed) > ownProgram {
		p.execOwn()
	} else {
		p.exec()
	}
	return p.sealed()
}

// ownProgram is the child's descriptor of ExecJob.Program.
const ownProgram = 3

// execOwn runs the program that was passed along. No path is looked up: what the container has is of no matter.
func (p *program) execOwn() {
	args, env := p.strs(p.plan.Process.Args), p.strs(p.plan.Process.Env)
	p.call("close the program", unix.SYS_FCNTL, num(ownProgram), num(unix.F_SETFD), num(unix.FD_CLOEXEC)) // I1
	p.call("run "+p.plan.Process.Args[0], unix.SYS_EXECVEAT, num(ownProgram), p.str(""), args, env, num(unix.AT_EMPTY_PATH))
}

// Root opens the root directory that the process has now (O_PATH). The caller closes the descriptor.
func (p *Process) Root() (int, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", p.pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, os.ErrProcessDone
	}
	// While it lives, its number was its own.
	if err := p.Signal(0); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}
