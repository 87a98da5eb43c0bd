package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/console"
	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/protocol"
	"github.com/skep-io/skep/runtime/spec"
)

// maxExecs bounds the processes of execs in one container that run at once: each costs this process a handle.
const maxExecs = 128

// execs are the processes of a container that execs started and that have not ended.
type execs struct {
	mu sync.Mutex // guards all below
	// processes are those that run, and whether one is apart: not in the container's control group.
	processes map[*launch.Process]bool
	count     int  // of all, with those that are being started
	ended     bool // the container has ended, and with it those that are apart
	halted    bool

	// running counts as count does; what is added is added under mu, and nothing when halted.
	running sync.WaitGroup
}

// reserve makes room for one more.
func (e *execs) reserve(id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.halted {
		return fmt.Errorf("%w: container %s is being given up", protocol.ErrState, id)
	}
	if e.count >= maxExecs {
		return fmt.Errorf("%w: %d processes run in container %s beside its own; end some", protocol.ErrState, maxExecs, id)
	}
	e.count++
	e.running.Add(1)
	return nil
}

// keep uses the room for a process.
func (e *execs) keep(p *launch.Process, apart bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.processes == nil {
		e.processes = make(map[*launch.Process]bool)
	}
	e.processes[p] = apart
	if e.ended && apart {
		_ = p.Signal(unix.SIGKILL) // it fails for one that has ended
	}
	if e.halted {
		p.Close()
	}
}

// release gives up the room of a process that has ended, or of nil, which could not be started.
func (e *execs) release(p *launch.Process) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p != nil {
		delete(e.processes, p)
		p.Close()
	}
	e.count--
	e.running.Done()
}

// killApart ends the processes that the end of the container's control group doesn't.
func (e *execs) killApart() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended = true
	for p, apart := range e.processes {
		if apart {
			_ = p.Signal(unix.SIGKILL) // it fails for one that has ended
		}
	}
}

// pids are the numbers of the processes.
func (e *execs) pids() []int {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []int
	for p := range e.processes {
		out = append(out, p.Pid())
	}
	return out
}

// halt ends every Wait. The processes go on. It may be called again.
func (e *execs) halt() {
	e.mu.Lock()
	e.halted = true
	for p := range e.processes {
		p.Close()
	}
	e.mu.Unlock()
	e.running.Wait()
}

// session answers an exec or a copy: it starts the process and serves the connection until the process ends. The client's going
// away ends the process.
func (v *server) session(conn *net.UnixConn, call protocol.Call) {
	begin, detach := v.exec, call.Exec != nil && call.Exec.Detach
	if call.Op == protocol.OpCopy {
		begin, detach = v.copy, false
	}
	c, p, files, err := begin(context.Background(), call)
	if err != nil {
		v.reply(conn, protocol.Reply{Error: protocol.NewFailure(err)})
		return
	}
	told := v.reply(conn, protocol.Reply{Started: &protocol.Started{Pid: p.Pid(), Files: len(files)}}) &&
		protocol.SendFiles(conn, files) == nil
	closeAll(files)
	exited := make(chan launch.Exit, 1)
	wait := func() {
		exit, err := p.Wait()
		if err != nil { // halted
			exit = launch.Exit{Code: unknownExit, Unknown: true}
		}
		c.execs.release(p)
		exited <- exit
	}
	go wait() // ends with the process, or with the container's halt
	if detach {
		return
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		v.relaySignals(conn, p)
	}()
	if !told {
		conn.Close()
	}
	select {
	case exit := <-exited:
		v.reply(conn, protocol.Reply{Ended: &protocol.Ended{ExitCode: exit.Code, Signal: int(exit.Signal)}})
	case <-gone:
		killSession(p)
		if call.Op == protocol.OpCopy || !c.group.Frozen() { // else it ends when it is let go on
			<-exited
		}
	}
	conn.Close()
	<-gone
}

// relaySignals passes on what the client sends, until it goes away.
func (v *server) relaySignals(conn *net.UnixConn, p *launch.Process) {
	for {
		var call protocol.Call
		attachment, err := protocol.Read(conn, &call)
		clear(attachment)
		if err != nil || call.Op != protocol.OpKill {
			return
		}
		if call.Signal >= 1 && call.Signal <= lastSignal {
			// One that has ended needs no signal.
			_ = p.Signal(unix.Signal(call.Signal))
		}
	}
}

// killSession kills a process and those in its process group, which it leads. Its number is its own for as long as it
// was not waited for; that only Wait does, and after the pidfd's word that it has ended.
func killSession(p *launch.Process) {
	if p.Signal(0) == nil {
		// What it started may have left already.
		_ = unix.Kill(-p.Pid(), unix.SIGKILL)
	}
	_ = p.Signal(unix.SIGKILL) // if not, it has ended
}

// exec starts a process in a container and gives the client's descriptors.
func (v *server) exec(ctx context.Context, call protocol.Call) (*container, *launch.Process, []*os.File, error) {
	if call.Exec == nil {
		return nil, nil, nil, fmt.Errorf("%w: exec without a program", protocol.ErrInvalid)
	}
	c, err := v.find(call.ID)
	if err != nil {
		return nil, nil, nil, err
	}
	if err := c.executable(); err != nil {
		return nil, nil, nil, err
	}
	plan, err := loadExecPlan(c.dir)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("exec in container %s: %w", c.id, err)
	}
	plan, err = plan.Exec(spec.ExecProcess{Args: call.Exec.Args, Env: call.Exec.Env, Cwd: call.Exec.Cwd, User: call.Exec.User})
	if err != nil {
		return nil, nil, nil, fmt.Errorf("exec in container %s: %w: %w", c.id, protocol.ErrInvalid, err)
	}
	if err := c.execs.reserve(c.id); err != nil {
		return nil, nil, nil, err
	}
	p, files, err := v.spawn(ctx, c, plan, call.Exec)
	if err == nil {
		c.execs.keep(p, false)
		return c, p, files, nil
	}
	c.execs.release(nil)
	kind := protocol.ErrStart
	switch {
	case errors.Is(err, errPaused):
		return nil, nil, nil, fmt.Errorf("%w: container %s is paused; unpause it first", protocol.ErrState, c.id)
	case errors.Is(err, os.ErrProcessDone):
		return nil, nil, nil, fmt.Errorf("%w: container %s is not running", protocol.ErrState, c.id)
	case errors.Is(err, fs.ErrNotExist):
		kind = protocol.ErrNoProgram
	}
	return nil, nil, nil, fmt.Errorf("exec in container %s: %w: %w", c.id, kind, err)
}

// executable says whether a process can be started in the container.
func (c *container) executable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.machine.phase != phaseRunning {
		return fmt.Errorf("%w: container %s is not running but %s", protocol.ErrState, c.id, c.machine.describe())
	}
	if c.process == nil {
		return fmt.Errorf("%w: container %s could not be taken over when the supervisor began", protocol.ErrState, c.id)
	}
	return nil
}

// admits says whether a process can be added now. The caller holds pausing.
func (c *container) admits() error {
	switch {
	case c.leaving:
		return fmt.Errorf("%w: container %s is not running", protocol.ErrState, c.id)
	case c.group.Frozen():
		return errPaused
	}
	return nil
}

// errPaused is returned when a container is halted.
var errPaused = errors.New("container is paused")

// spawn starts the process with new descriptors.
func (v *server) spawn(ctx context.Context, c *container, plan *spec.Plan, e *protocol.Exec) (*launch.Process, []*os.File, error) {
	d, err := v.descriptors(c, plan, e)
	if err != nil {
		return nil, nil, err
	}
	defer closeAll(d.close)
	c.pausing.RLock() // a child in a halted group would never get to its program
	defer c.pausing.RUnlock()
	if err := c.admits(); err != nil {
		closeAll(d.client)
		return nil, nil, err
	}
	v.launches <- struct{}{}
	p, err := v.launcher.Exec(ctx, c.process, launch.ExecJob{Plan: plan, Group: c.group, Stdio: d.stdio, Terminal: e.Terminal != nil})
	<-v.launches
	if err != nil {
		closeAll(d.client)
		return nil, nil, err
	}
	return p, d.client, nil
}

// descriptors are the two sides of a process's input and output.
type descriptors struct {
	stdio  [3]*os.File // the process's
	client []*os.File  // the client's, in the order that protocol.Started says
	close  []*os.File  // to close once the process has its own
}

// descriptors makes pipes or a terminal, which belong to the user of the process.
func (v *server) descriptors(c *container, plan *spec.Plan, e *protocol.Exec) (*descriptors, error) {
	uid, _ := plan.HostUID(plan.Process.UID)
	gid, _ := plan.HostGID(plan.Process.GID)
	d := &descriptors{stdio: [3]*os.File{v.null, v.nullOut, v.nullOut}}
	var err error
	switch {
	case e.Detach:
	case e.Terminal != nil:
		err = d.terminal(c.process.Root, plan, uid, *e.Terminal)
	default:
		err = d.pipes(e.Stdin, uid, gid)
	}
	if err != nil {
		closeAll(append(d.client, d.close...))
		return nil, err
	}
	return d, nil
}

func (d *descriptors) pipes(stdin bool, uid, gid uint32) error {
	for at := 1; at <= 3; at++ {
		if at == 3 && !stdin {
			break
		}
		r, w, err := pipe(uid, gid)
		if err != nil {
			return err
		}
		own, clients := w, r
		if at == 3 { // input comes last
			own, clients = r, w
		}
		d.stdio[at%3] = own
		d.close = append(d.close, own)
		d.client = append(d.client, clients)
	}
	return nil
}

// pipe makes a pipe whose ends the user of the process may open again, as /dev/stdout.
func pipe(uid, gid uint32) (r, w *os.File, err error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	r, w = os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe")
	if err := unix.Fchown(fds[0], int(uid), int(gid)); err != nil {
		closeAll([]*os.File{r, w})
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	return r, w, nil
}

// terminal makes a terminal in the container's own file system for terminals. root opens the container's root directory.
func (d *descriptors) terminal(root func() (int, error), plan *spec.Plan, uid uint32, size protocol.Size) error {
	dir, err := root()
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	gid, ok := plan.HostGID(console.Group)
	if !ok {
		gid, _ = plan.HostGID(0)
	}
	master, slave, err := console.Open(dir, uid, gid, size.Rows, size.Cols)
	if err != nil {
		return fmt.Errorf("make terminal: %w", err)
	}
	d.stdio = [3]*os.File{slave, slave, slave}
	d.close, d.client = append(d.close, slave), append(d.client, master)
	return nil
}
