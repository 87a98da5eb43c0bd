package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/protocol"
)

// container is one container and the goroutines that watch it.
type container struct {
	// Constant after creation.
	id      string
	dir     string
	log     protocol.LogConfig
	boot    string
	started uint64 // of the process, in ticks
	group   *cgroup.Group
	process *launch.Process // or nil: ended before this supervisor came
	ended   chan struct{}   // closed when the exit is announced

	terminal bool // its input and output are a terminal
	output   *output

	watching sync.Mutex // guards the next three
	exit     *watch     // of the process's end
	oom      *watch     // or nil
	ooms     *os.File   // what oom watches, or nil

	removal sync.Mutex // held by Delete: one at a time

	execs execs
	// pausing is held while processes are halted or let go on, while one is added, and while the control group ends. It guards the next two.
	pausing  sync.RWMutex
	leaving  bool // the control group ends: nothing is added to it
	released bool // the mounts and the control group are gone
	// rewriting is held while files get new contents.
	rewriting sync.Mutex

	mu      sync.Mutex // guards machine, and the order of the container's records
	machine machine

	// public is what clients see: the state as it was last announced. Guarded by Supervisor.mu.
	public protocol.State
}

// feed gives the machine an input and carries out what it decides: journal first, then the announcement (I1).
func (s *Supervisor) feed(c *container, in input) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	effects, err := c.machine.step(s.now(), in)
	if err != nil {
		return err
	}
	for _, e := range effects {
		if err := s.save(c.record(e.event.State), e.durable); err != nil {
			// The container's fate does not depend on the disk: it goes on, and the failure is on record elsewhere.
			s.logger.Error("journal not written", "container", c.id, "error", err)
		}
		s.publish(c, e.event)
	}
	return nil
}

// record gives what is remembered of the container in this state.
func (c *container) record(state protocol.State) record {
	return record{
		Version: recordVersion, State: state, Log: c.log, Boot: c.boot, Started: c.started, Terminal: c.terminal,
	}
}

// publish makes a state visible and announces it (I2).
func (s *Supervisor) publish(c *container, e protocol.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.public = e.State
	s.announceLocked(e)
	if e.Type == protocol.EventExited {
		close(c.ended)
	}
}

// openOOMs opens what tells of OOM kills, for watch.
func (s *Supervisor) openOOMs(c *container) {
	var err error
	if c.ooms, err = c.group.OOMEvents(); err != nil {
		s.logger.Warn("OOM kills are told at the end only", "container", c.id, "error", err)
	}
}

// watch follows a container to its end, or until halt is called.
func (s *Supervisor) watch(c *container) {
	c.watching.Lock()
	defer c.watching.Unlock()
	var err error
	if c.ooms != nil {
		if c.oom, err = s.poller.addFile(c.ooms, func() bool { return s.sawOOM(c) }); err != nil {
			s.logger.Warn("OOM kills are told at the end only", "container", c.id, "error", err)
		}
	}
	c.exit, err = s.poller.addFile(c.process, func() bool {
		exit, err := c.process.Await()
		if err == nil { // else halted
			s.finish(c, exit)
			c.process.Reap() // only now that its end is recorded: before, the keeper would inherit it (I10)
		}
		return false
	})
	if err != nil {
		s.logger.Error("the end of the container will not be seen", "container", c.id, "error", err)
	}
}

// oomLag is how long a v1 kernel may take from the notice to the kill.
const oomLag = 50 * time.Millisecond

// sawOOM looks whether a process was killed for want of memory, and reports whether to go on watching.
func (s *Supervisor) sawOOM(c *container) bool {
	conn, err := c.ooms.SyscallConn()
	if err != nil {
		return false
	}
	var buffer [4096]byte
	// What it says is not needed, only that it is taken away.
	if err := conn.Read(func(fd uintptr) bool { _, _ = unix.Read(int(fd), buffer[:]); return true }); err != nil {
		return false
	}
	for range 2 {
		if n, err := c.group.OOMKills(); err == nil && n > 0 {
			// Only an unknown input is refused.
			_ = s.feed(c, oomKilled{})
			return false // it is told once
		}
		time.Sleep(oomLag)
	}
	return true
}

// unwatchOOM gives up what is needed for OOM kills.
func (c *container) unwatchOOM() {
	c.watching.Lock()
	defer c.watching.Unlock()
	c.oom.close()
	if c.ooms != nil {
		c.ooms.Close()
	}
	c.oom, c.ooms = nil, nil
}

// drainTime bounds the wait for output after the end: with the process all writers are gone, unless one of them is
// outside the container.
const drainTime = 2 * time.Second

// finish records the end of a container, when nothing of it runs any more and its output is written.
func (s *Supervisor) finish(c *container, exit launch.Exit) {
	if err := c.group.KillAll(); err != nil {
		s.logger.Error("processes may be left", "container", c.id, "error", err)
	}
	c.execs.killApart()
	c.output.drain(drainTime)
	c.unwatchOOM()
	if exit.Unknown {
		if status, ok := s.witnessed(c.id); ok {
			exit = launch.ExitOf(status)
		}
	}
	in := exited{code: exit.Code, signal: int(exit.Signal)}
	if exit.Unknown { // I7
		in.unknown = true
		in.code, in.text = unknownExit, "exit code not known: the supervisor was restarted, and the kernel doesn't tell"
	}
	if n, err := c.group.OOMKills(); err == nil {
		in.oom = n > 0
	}
	if s.foreign == nil {
		s.background.Go(func() { // while the disk writes
			if in.oom { // only the group says so, should this program end before the disk has it
				c.process.ReleaseMounts()
				return
			}
			_ = c.release(context.Background()) // Delete tries again
		})
	}
	if err := s.feed(c, in); err != nil {
		s.logger.Error("exit not recorded", "container", c.id, "error", err)
	}
	s.forget(c)
	s.logger.Info("container exited", "container", c.id, "code", in.code, "oom", in.oom)
}

// release takes down what nothing is left in of a container that has ended: its mounts and its control group. It may be called again.
func (c *container) release(ctx context.Context) error {
	c.pausing.Lock()
	defer c.pausing.Unlock()
	if c.released {
		return nil
	}
	c.leaving = true
	if c.process != nil {
		c.process.ReleaseMounts()
	}
	err := c.group.Remove(ctx)
	c.released = err == nil
	return err
}

// unknownExit is the exit code when nobody knows it.
const unknownExit = 255

// Exit codes of programs that could not be run, as shells have them.
const (
	exitNotFound = 127
	exitNotRun   = 126
)

// start runs the program.
func (s *Supervisor) start(ctx context.Context, c *container) error {
	if err := s.feed(c, startAsked{}); err != nil {
		return err
	}
	start := c.process.Start
	if s.foreign != nil {
		start = func(ctx context.Context) error { return s.foreign.Start(ctx, c.id) }
	}
	err := start(ctx)
	if err == nil {
		return s.feed(c, executed{})
	}
	in := executeFailed{code: exitNotRun, text: err.Error()}
	if errors.Is(err, fs.ErrNotExist) {
		in.code = exitNotFound
	}
	// After a refusal by the child this does nothing: it has ended.
	_ = c.process.Signal(unix.SIGKILL)
	if err := s.feed(c, in); err != nil {
		s.logger.Error("failed start not recorded", "container", c.id, "error", err)
	}
	return fmt.Errorf("%w: %w", protocol.ErrStart, err)
}

// signal sends a signal to the first process, or SIGKILL to all.
func (s *Supervisor) signal(c *container, sig unix.Signal, all bool) error {
	select {
	case <-c.ended:
		return fmt.Errorf("%w: container %s is not running", protocol.ErrState, c.id)
	default:
	}
	if all {
		return c.group.KillAll()
	}
	err := c.process.Signal(sig)
	if errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("%w: container %s is not running", protocol.ErrState, c.id)
	}
	if err == nil && sig == unix.SIGKILL && c.group.Frozen() { // a halted process ends when it goes on
		err = c.group.Thaw()
	}
	return err
}

// halt stops watching; the container goes on, but for one that was not started (I4). It may be called again.
func (c *container) halt() {
	c.watching.Lock()
	exit := c.exit
	c.watching.Unlock()
	if c.process != nil {
		c.process.Interrupt()
	}
	exit.close()
	c.unwatchOOM()
	if c.process != nil {
		c.process.Close()
	}
	c.execs.halt()
	c.output.close()
	c.pausing.Lock()
	defer c.pausing.Unlock()
	c.leaving = true
	c.group.Close()
}
