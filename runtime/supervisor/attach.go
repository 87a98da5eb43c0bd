package supervisor

import (
	"fmt"
	"net"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/protocol"
)

// Limits of those who look on.
const (
	// maxCopies is how many may look at a stream of a container at once.
	maxCopies = 16
	// copySize is how far one may fall behind, in bytes, before it is cut off: a container never waits for who looks on.
	copySize = 1 << 20
)

// copies are pipes that get what a stream prints, from when they were added.
type copies struct {
	mu    sync.Mutex // guards all below
	all   []*onlooker
	ended bool
}

// onlooker is the writing end of one, which does not block.
type onlooker struct{ fd int }

// add gives the reading end of a new pipe, which is the caller's. It ends with the stream.
func (c *copies) add() (*os.File, *onlooker, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.all) >= maxCopies {
		return nil, nil, fmt.Errorf("%w: %d are attached already", protocol.ErrState, maxCopies)
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return nil, nil, fmt.Errorf("make pipe: %w", err)
	}
	reading, w := os.NewFile(uintptr(fds[0]), "copy"), &onlooker{fd: fds[1]}
	if c.ended {
		unix.Close(w.fd)
		return reading, w, nil
	}
	// Where it may not be as large, it holds 64 KiB.
	_, _ = unix.FcntlInt(uintptr(w.fd), unix.F_SETPIPE_SZ, copySize)
	c.all = append(c.all, w)
	return reading, w, nil
}

// give writes data to all. Who is gone or has no room for it is cut off.
func (c *copies) give(data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = slices.DeleteFunc(c.all, func(w *onlooker) bool {
		n, err := unix.Write(w.fd, data)
		if err == nil && n == len(data) {
			return false
		}
		unix.Close(w.fd)
		return true
	})
}

// drop ends one, if it has not ended.
func (c *copies) drop(w *onlooker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i := slices.Index(c.all, w); i >= 0 {
		unix.Close(w.fd)
		c.all = slices.Delete(c.all, i, i+1)
	}
}

// end ends all.
func (c *copies) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.all {
		unix.Close(w.fd)
	}
	c.all, c.ended = nil, true
}

// look gives the client's descriptors of an attachment, in the order that protocol.Started says, and what ends it.
func (c *container) look() (files []*os.File, end func(), err error) {
	if c.output == nil {
		return nil, nil, fmt.Errorf("%w: the output of container %s was lost with a supervisor before", protocol.ErrState, c.id)
	}
	var added []*onlooker
	end = func() {
		for i, w := range added {
			c.output.pipes[i].copies.drop(w)
		}
	}
	for _, p := range c.output.pipes {
		f, w, err := p.copies.add()
		if err != nil {
			closeAll(files)
			end()
			return nil, nil, fmt.Errorf("attach to container %s: %w", c.id, err)
		}
		files, added = append(files, f), append(added, w)
	}
	if fd, ok := c.master(); ok {
		files = append(files, os.NewFile(uintptr(fd), "terminal"))
	} else if c.terminal {
		closeAll(files)
		end()
		return nil, nil, fmt.Errorf("%w: the terminal of container %s has ended", protocol.ErrState, c.id)
	}
	return files, end, nil
}

// attach gives a client what a container prints from now on, and the way into its terminal, until either ends. The client's
// going away ends nothing but that.
func (v *server) attach(conn *net.UnixConn, call protocol.Call) {
	c, files, end, err := v.onlook(call.ID)
	if err != nil {
		v.reply(conn, protocol.Reply{Error: protocol.NewFailure(err)})
		return
	}
	defer end()
	started := &protocol.Started{Pid: c.process.Pid(), Files: len(files), Terminal: c.terminal}
	told := v.reply(conn, protocol.Reply{Started: started}) && protocol.SendFiles(conn, files) == nil
	closeAll(files)
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		v.relaySignals(conn, c.process)
	}()
	if !told {
		conn.Close()
	}
	select {
	case <-c.ended:
		v.Supervisor.mu.Lock()
		state := c.public
		v.Supervisor.mu.Unlock()
		v.reply(conn, protocol.Reply{Ended: &protocol.Ended{ExitCode: state.ExitCode, Signal: state.Signal}})
	case <-gone:
	}
	conn.Close()
	<-gone
}

// onlook finds a container that has not ended, and looks at it.
func (v *server) onlook(id string) (*container, []*os.File, func(), error) {
	c, err := v.find(id)
	if err != nil {
		return nil, nil, nil, err
	}
	select {
	case <-c.ended:
		return nil, nil, nil, fmt.Errorf("%w: container %s is not running", protocol.ErrState, id)
	default:
	}
	if c.process == nil {
		return nil, nil, nil, fmt.Errorf("%w: container %s could not be taken over when the supervisor began", protocol.ErrState, id)
	}
	files, end, err := c.look()
	return c, files, end, err
}
