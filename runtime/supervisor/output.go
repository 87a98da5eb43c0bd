package supervisor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/logfile"
	"github.com/skep-io/skep/runtime/lsm"
	"github.com/skep-io/skep/runtime/protocol"
)

// streams are the names of the pipes.
func streams() []string { return []string{logfile.Stdout, logfile.Stderr} }

// pipeMode lets every user of the container open /dev/stdout again, as programs do that give up their rights. Others
// can't reach the pipe: its directory is root's.
const pipeMode = 0o622

// makePipes makes the named pipes in dir, owned by the container's user.
func makePipes(dir, label string, uid, gid uint32) error {
	for _, name := range streams() {
		path := filepath.Join(dir, name)
		err := unix.Mkfifo(path, 0o600)
		if err == nil {
			err = unix.Chown(path, int(uid), int(gid))
		}
		if err == nil {
			err = unix.Chmod(path, pipeMode)
		}
		if err == nil && label != "" { // or the process would lose them to SELinux
			err = unix.Lsetxattr(path, lsm.SELinuxAttr, []byte(label), 0)
		}
		if err != nil {
			return fmt.Errorf("make pipe %s: %w", path, err)
		}
	}
	return nil
}

// openWriters opens the container's ends. They are open for reading too, so that a container whose supervisor is away
// waits when the pipe is full instead of dying from it. They are opened through a clone of dir's mount, so that the
// container sees no path of the host in /proc/self/fd. The clone comes after them: to close it takes the kernel a while.
func openWriters(dir string) ([]*os.File, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("open pipes: %w", err)
	}
	clone := os.NewFile(uintptr(tree), dir)
	var files []*os.File
	for _, name := range streams() {
		fd, err := unix.Openat(tree, name, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err != nil {
			closeAll(append(files, clone))
			return nil, fmt.Errorf("open pipe %s: %w", name, err)
		}
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	return append(files, clone), nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// output are the reading ends of a container's pipes, or its terminal, and the log that they end in.
type output struct {
	dir      string          // of the pipes
	writer   *logfile.Writer // or nil: output is dropped
	pipes    []*outPipe
	terminal bool // the only one of pipes is the master of a terminal

	mu   sync.Mutex    // guards open
	open int           // pipes that have not ended
	end  chan struct{} // closed when all have

	once    sync.Once  // closes
	using   sync.Mutex // held while the descriptors are used by others than their watches
	closing bool       // guarded by using
}

// outPipe is the reading end of one of them, or a terminal.
type outPipe struct {
	output *output
	name   string
	fd     int
	stream *logfile.Stream // or nil: output is dropped
	watch  *watch
	ended  bool // guarded by the watch, as is the next
	kept   bool // there is something in the file of keepRest
	copies copies
}

// openOutput opens the supervisor's ends and the log, and begins to read; again says that a supervisor before has done so.
func (s *Supervisor) openOutput(dir string, cfg protocol.LogConfig, again bool) (*output, error) {
	o, err := newOutput(dir, cfg, len(streams()))
	if err != nil {
		return nil, err
	}
	for _, name := range streams() {
		fd, err := unix.Open(filepath.Join(dir, name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
		if err == nil {
			err = s.readFrom(o, fd, name, again)
		}
		if err != nil {
			o.close()
			return nil, fmt.Errorf("open pipe: %w", err)
		}
	}
	return o, nil
}

// openTerminal is openOutput for a container with a terminal, whose master it takes.
func (s *Supervisor) openTerminal(master int, dir string, cfg protocol.LogConfig, again bool) (*output, error) {
	o, err := newOutput(dir, cfg, 1)
	if err == nil {
		o.terminal = true
		err = unix.SetNonblock(master, true)
	}
	if err != nil {
		unix.Close(master)
	} else {
		err = s.readFrom(o, master, logfile.Stdout, again)
	}
	if err != nil {
		o.close()
		return nil, fmt.Errorf("open terminal: %w", err)
	}
	return o, nil
}

// newOutput opens the log that a number of streams end in.
func newOutput(dir string, cfg protocol.LogConfig, streams int) (*output, error) {
	o := &output{dir: dir, end: make(chan struct{}), open: streams}
	if cfg.Path == "" {
		return o, nil
	}
	var err error
	o.writer, err = logfile.New(logfile.Config{Path: cfg.Path, MaxSize: cfg.MaxSize, MaxFiles: cfg.MaxFiles})
	return o, err
}

// readFrom begins to read from a descriptor, which it takes.
func (s *Supervisor) readFrom(o *output, fd int, name string, again bool) error {
	p := &outPipe{output: o, name: name, fd: fd}
	if o.writer != nil {
		p.stream = o.writer.Stream(name)
	}
	if again {
		if err := p.recallRest(); err != nil { // what comes from here on is worth more
			s.logger.Error("a part of a line of output is lost", "file", p.restPath(), "error", err)
		}
	}
	var err error
	if p.watch, err = s.poller.add(fd, p.pump); err != nil {
		unix.Close(fd)
		return err
	}
	o.pipes = append(o.pipes, p)
	return nil
}

// pipeBuffer is what is read at once, and pipeTurn how often, before others get their turn: as much as a pipe holds.
const (
	pipeBuffer = 8 << 10
	pipeTurn   = 8
)

// pipeBuffers are for reading, while there is something to read.
var pipeBuffers = sync.Pool{New: func() any { return new([pipeBuffer]byte) }}

// pump moves what there is in the pipe to the log, and reports whether there may be more later.
func (p *outPipe) pump() bool {
	buffer := pipeBuffers.Get().(*[pipeBuffer]byte)
	defer pipeBuffers.Put(buffer)
	defer p.keepRest()
	for range pipeTurn {
		n, err := unix.Read(p.fd, buffer[:])
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return true
		case n <= 0: // the end, since all writers are gone, of a terminal with EIO; other errors end it, too
			p.finish()
			return false
		default:
			p.copies.give(buffer[:n]) // before the log: what that has when somebody attaches is not shown as new
			if p.stream != nil {
				_, _ = p.stream.Write(buffer[:n]) // never fails
			}
		}
	}
	return true
}

// finish ends the stream. It is called by pump, or after the watch was closed.
func (p *outPipe) finish() {
	if p.ended {
		return
	}
	p.ended = true
	if p.stream != nil {
		p.stream.End()
		p.keepRest()
	}
	p.copies.end()
	p.output.mu.Lock()
	defer p.output.mu.Unlock()
	if p.output.open--; p.output.open == 0 {
		close(p.output.end)
	}
}

// drain waits for the end of output, but not longer than limit, and closes.
func (o *output) drain(limit time.Duration) {
	if o == nil {
		return
	}
	for _, p := range o.pipes {
		p.watch.fire() // most often that is all, and nobody needs to be waited for
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-o.end:
	case <-timer.C:
	}
	o.close()
}

// use calls f with the reading ends, which stay open meanwhile; none if they are closed.
func (o *output) use(f func(fds []int)) {
	if o == nil {
		f(nil)
		return
	}
	o.using.Lock()
	defer o.using.Unlock()
	var fds []int
	if !o.closing {
		for _, p := range o.pipes {
			fds = append(fds, p.fd)
		}
	}
	f(fds)
}

// close stops reading. It may be called again, and at once with drain.
func (o *output) close() {
	if o == nil {
		return
	}
	o.once.Do(func() {
		o.using.Lock()
		defer o.using.Unlock()
		o.closing = true
		for _, p := range o.pipes {
			p.watch.close()
			p.finish()
			unix.Close(p.fd)
		}
		if o.writer != nil {
			o.writer.Close()
		}
	})
}
