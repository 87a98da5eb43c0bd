package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/protocol"
)

type (
	// ExecRequest describes one more process for a running container.
	ExecRequest = protocol.Exec
	// Size is that of a terminal's window, in characters.
	Size = protocol.Size
	// CopyRequest describes files to copy from a container or to it, and CopyNote is a line of what the process that copies says.
	CopyRequest = protocol.Copy
	CopyNote    = protocol.CopyNote
)

// Kinds of errors in a CopyNote.
const (
	CopyNotFound = protocol.CopyNotFound
	CopyInvalid  = protocol.CopyInvalid
	CopyLimit    = protocol.CopyLimit
)

// Exec is a process that was started in a running container, and that ends with it. Its files are nil where it has none;
// they may be closed one by one.
type Exec struct {
	// Terminal is the master of the process's terminal: what is written is typed, what is read is shown. Reading fails with
	// EIO when the last process on it has ended.
	Terminal *os.File
	// Stdin, Stdout and Stderr are the other ends of its pipes.
	Stdin, Stdout, Stderr *os.File

	// Pid is the process's number on the host.
	Pid int

	conn *net.UnixConn
	send sync.Mutex // one signal at a time
}

// Exec runs a program in a container, and returns when it runs. The errors are ErrNotFound; ErrState when the container
// doesn't run; ErrInvalid; ErrNoProgram; and ErrStart when the program can't be run. Unless r.Detach is set, the process is killed when the
// Exec is closed, and when this process ends; with it set there is no Exec to keep, and the result is nil.
func (c *Client) Exec(ctx context.Context, id string, r ExecRequest) (*Exec, error) {
	return c.session(ctx, protocol.Call{Op: protocol.OpExec, ID: id, Exec: &r}, r)
}

// Copy begins to copy files from a container or to it, which may be paused. The result is the process that copies, which has a
// Stdin only for a copy to the container; see protocol.Copy. The errors are those of Exec. Closing it ends the copy.
func (c *Client) Copy(ctx context.Context, id string, r CopyRequest) (*Exec, error) {
	return c.session(ctx, protocol.Call{Op: protocol.OpCopy, ID: id, Copy: &r}, ExecRequest{Stdin: !r.From})
}

// session makes a call that starts a process, with the descriptors that an exec of r has.
func (c *Client) session(ctx context.Context, call protocol.Call, r ExecRequest) (*Exec, error) {
	e, started, err := c.begin(ctx, call)
	if err != nil {
		return nil, err
	}
	e.Pid = started.Pid
	want := []**os.File{}
	switch {
	case r.Detach:
	case r.Terminal != nil:
		want = append(want, &e.Terminal)
	default:
		want = append(want, &e.Stdout, &e.Stderr)
		if r.Stdin {
			want = append(want, &e.Stdin)
		}
	}
	err = e.receive(started.Files, want)
	if err != nil || r.Detach {
		e.Close()
		return nil, err
	}
	return e, nil
}

// begin makes a call that is answered by Started, on a connection of its own.
func (c *Client) begin(ctx context.Context, call protocol.Call) (*Exec, *protocol.Started, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	e := &Exec{conn: conn.(*net.UnixConn)}
	reply, err := exchange(ctx, conn, call, nil)
	if err == nil {
		err = reply.Error.Err()
	}
	if err == nil && reply.Started == nil {
		err = fmt.Errorf("%w: reply without a process", protocol.ErrFrame)
	}
	if err != nil {
		e.Close()
		return nil, nil, err
	}
	return e, reply.Started, nil
}

// receiveTime bounds the wait for descriptors that the supervisor has announced.
const receiveTime = 10 * time.Second

// receive takes n descriptors, which are to be those that are wanted.
func (e *Exec) receive(n int, want []**os.File) error {
	if err := e.conn.SetDeadline(time.Now().Add(receiveTime)); err != nil {
		return err
	}
	files, err := protocol.ReceiveFiles(e.conn, n)
	if err != nil {
		return err
	}
	if len(files) != len(want) {
		for _, f := range files {
			f.Close()
		}
		return fmt.Errorf("%w: %d descriptors instead of %d", protocol.ErrFrame, len(files), len(want))
	}
	for i, f := range files {
		*want[i] = f
	}
	return e.conn.SetDeadline(time.Time{})
}

// Wait blocks until the process has ended, and gives its exit code: 0 to 255, or 128 plus the signal that ended it. When ctx
// ends first, the process is killed. Wait may be called once.
func (e *Exec) Wait(ctx context.Context) (int, error) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		e.conn.Close()
	})
	var reply protocol.Reply
	_, err := protocol.Read(e.conn, &reply)
	if !stop() {
		<-interrupted
		if err != nil {
			return 0, context.Cause(ctx)
		}
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("wait for exec: the container supervisor went away: %w", err)
	case reply.Ended == nil:
		return 0, fmt.Errorf("%w: no end of exec", protocol.ErrFrame)
	}
	return reply.Ended.ExitCode, nil
}

// Signal sends a signal to the process. One that has ended gets none.
func (e *Exec) Signal(sig syscall.Signal) error {
	e.send.Lock()
	defer e.send.Unlock()
	err := protocol.Write(e.conn, protocol.Call{Op: protocol.OpKill, Signal: int(sig)})
	if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
		return nil
	}
	return err
}

// Resize sets the size of the window of the process's terminal, and does nothing without one.
func (e *Exec) Resize(size Size) error {
	if e.Terminal == nil {
		return nil
	}
	return resize(e.Terminal, size)
}

func resize(terminal *os.File, size Size) error {
	conn, err := terminal.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		failed = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	})
	if err := errors.Join(err, failed); err != nil {
		return fmt.Errorf("set size of terminal: %w", err)
	}
	return nil
}

// Close closes all files and lets go of the process, which is killed if it has not ended.
func (e *Exec) Close() {
	for _, f := range []*os.File{e.Terminal, e.Stdin, e.Stdout, e.Stderr} {
		if f != nil {
			f.Close() // it may be closed already
		}
	}
	e.conn.Close()
}
