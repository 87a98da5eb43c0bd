package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/logfile"
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

	// Owned by the goroutines that watch adds.
	output  *output
	watches sync.WaitGroup

	removal sync.Mutex // held by Delete: one at a time
	execs   execs

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
		r := record{Version: recordVersion, State: e.event.State, Log: c.log, Boot: c.boot, Started: c.started}
		if err := s.save(r, e.durable); err != nil {
			// The container's fate does not depend on the disk: it goes on, and the failure is on record elsewhere.
			s.logger.Error("journal not written", "container", c.id, "error", err)
		}
		s.publish(c, e.event)
	}
	return nil
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

// watch starts the goroutines that follow a container to its end. They end with it, or when halt is called.
func (s *Supervisor) watch(c *container) {
	oom, err := c.group.OOMEvents()
	if err != nil {
		s.logger.Warn("OOM kills are told at the end only", "container", c.id, "error", err)
	} else {
		c.watches.Go(func() { s.watchOOM(c, oom) })
	}
	c.watches.Go(func() {
		exit, err := c.process.Wait()
		if oom != nil {
			oom.Close() // ends watchOOM
		}
		if err != nil { // halted
			return
		}
		s.finish(c, exit)
	})
}

// oomLag is how long a v1 kernel may take from the notice to the kill.
const oomLag = 50 * time.Millisecond

func (s *Supervisor) watchOOM(c *container, events *os.File) {
	buffer := make([]byte, 4096)
	for {
		if _, err := events.Read(buffer); err != nil {
			return
		}
		for range 2 {
			if n, err := c.group.OOMKills(); err == nil && n > 0 {
				// Only an unknown input is refused.
				_ = s.feed(c, oomKilled{})
				break
			}
			time.Sleep(oomLag)
		}
	}
}

// drainTime bounds the wait for output after the end: with the process all writers are gone, unless one of them is
// outside the container.
const drainTime = 2 * time.Second

// finish records the end of a container, when nothing of it runs any more and its output is written.
func (s *Supervisor) finish(c *container, exit launch.Exit) {
	if err := c.group.KillAll(); err != nil {
		s.logger.Error("processes may be left", "container", c.id, "error", err)
	}
	c.output.drain(drainTime)
	in := exited{code: exit.Code, signal: int(exit.Signal)}
	if exit.Unknown { // I7
		in.code, in.text = unknownExit, "exit code not known: the supervisor was restarted, and the kernel doesn't tell"
	}
	if n, err := c.group.OOMKills(); err == nil {
		in.oom = n > 0
	}
	if err := s.feed(c, in); err != nil {
		s.logger.Error("exit not recorded", "container", c.id, "error", err)
	}
	s.logger.Info("container exited", "container", c.id, "code", in.code, "oom", in.oom)
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
	err := c.process.Start(ctx)
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
	return err
}

// halt stops watching; the container goes on, but for one that was not started (I4). It may be called again.
func (c *container) halt() {
	if c.process != nil {
		c.process.Close()
	}
	c.execs.halt()
	c.output.close()
	c.watches.Wait()
	c.group.Close()
}

// output are the pipes of a container and what pumps them into its log.
type output struct {
	writer *logfile.Writer // or nil: output is dropped
	pipes  []*os.File      // the reading ends
	pumps  sync.WaitGroup
}

// streams are the names of the pipes.
func streams() []string { return []string{logfile.Stdout, logfile.Stderr} }

// pipeMode lets every user of the container open /dev/stdout again, as programs do that give up their rights. Others
// can't reach the pipe: its directory is root's.
const pipeMode = 0o622

// makePipes makes the named pipes in dir, owned by the container's user.
func makePipes(dir string, uid, gid uint32) error {
	for _, name := range streams() {
		path := filepath.Join(dir, name)
		err := unix.Mkfifo(path, 0o600)
		if err == nil {
			err = unix.Chown(path, int(uid), int(gid))
		}
		if err == nil {
			err = unix.Chmod(path, pipeMode)
		}
		if err != nil {
			return fmt.Errorf("make pipe %s: %w", path, err)
		}
	}
	return nil
}

// openWriters opens the container's ends. They are open for reading too, so that a container whose supervisor is away
// waits when the pipe is full instead of dying from it. They are opened through a clone of dir's mount, so that the
// container sees no path of the host in /proc/self/fd.
func openWriters(dir string) ([]*os.File, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open pipes: %w", err)
	}
	defer unix.Close(tree)
	var files []*os.File
	for _, name := range streams() {
		fd, err := unix.Openat(tree, name, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("open pipe %s: %w", name, err)
		}
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// openOutput opens the supervisor's ends and the log, and starts pumping.
func openOutput(dir string, cfg protocol.LogConfig) (*output, error) {
	o := &output{}
	for _, name := range streams() {
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			o.close()
			return nil, fmt.Errorf("open pipe: %w", err)
		}
		o.pipes = append(o.pipes, os.NewFile(uintptr(fd), name))
	}
	if cfg.Path != "" {
		w, err := logfile.New(logfile.Config{Path: cfg.Path, MaxSize: cfg.MaxSize, MaxFiles: cfg.MaxFiles})
		if err != nil {
			o.close()
			return nil, err
		}
		o.writer = w
	}
	for _, pipe := range o.pipes {
		o.pumps.Go(func() { o.pump(pipe) })
	}
	return o, nil
}

func (o *output) pump(pipe *os.File) {
	if o.writer == nil {
		_, _ = pipe.WriteTo(discard{})
		return
	}
	// It fails when the pipe is closed under it, and what there was is written.
	_ = o.writer.Pump(pipe.Name(), pipe)
}

// discard drops output.
type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// drain waits for the end of output, but not longer than limit, and closes.
func (o *output) drain(limit time.Duration) {
	if o == nil {
		return
	}
	for _, p := range o.pipes {
		// The pipe may be closed already, when the supervisor ends.
		_ = p.SetReadDeadline(time.Now().Add(limit))
	}
	o.pumps.Wait()
	o.close()
}

func (o *output) close() {
	if o == nil {
		return
	}
	closeAll(o.pipes)
	o.pumps.Wait()
	if o.writer != nil {
		o.writer.Close()
	}
}
