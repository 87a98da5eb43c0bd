package keeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/protocol"
)

// ErrRefused is returned when the keeper does not do what it is asked for; the text is its own.
var ErrRefused = errors.New("refused by the keeper")

// patience bounds one message. The keeper does nothing that takes long; one that does not answer is as good as none.
const patience = 5 * time.Second

// Held is what the keeper has of a container.
type Held struct {
	// Known says that it was held. Otherwise the rest is zero.
	Known bool
	// Exited says that its first process has ended, and Status how.
	Exited bool
	Status unix.WaitStatus
	// Files are the descriptors that were kept, in their order, or none. They are the caller's; the keeper has its own.
	Files []int
}

// Client talks to a keeper. Make it with Dial.
type Client struct {
	conn *net.UnixConn // constant
	gone chan struct{} // closed when the connection has ended

	mu      sync.Mutex // held during a question and its answer
	answers chan received
}

type received struct {
	answer answer
	files  []int
}

// Dial connects to the keeper at a socket. The caller closes the Client.
func Dial(ctx context.Context, socket string) (*Client, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	// A net.Dialer takes names of machines, too, and what looks those up would be a part of the supervisor.
	conn, err := net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		return nil, fmt.Errorf("connect to the keeper: %w", err)
	}
	c := &Client{conn: conn, gone: make(chan struct{}), answers: make(chan received, 1)}
	go c.read()
	return c, nil
}

// read takes answers until the connection ends.
func (c *Client) read() {
	defer close(c.gone)
	buffer := make([]byte, maxMessage)
	for {
		var r received
		var err error
		if r.files, err = receive(c.conn, buffer, &r.answer); err != nil {
			c.conn.Close()
			return
		}
		select {
		case c.answers <- r:
		default: // nobody asked
			closeAll(r.files)
		}
	}
}

// Close closes the connection. What is held stays so.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.gone
	return err
}

// Gone is closed when the keeper has ended, or the Client was closed.
func (c *Client) Gone() <-chan struct{} { return c.gone }

// Peer gives the number of the keeper's process.
func (c *Client) Peer() (int, error) {
	cred, err := protocol.Peer(c.conn)
	if err != nil {
		return 0, fmt.Errorf("find the keeper's process: %w", err)
	}
	return int(cred.Pid), nil
}

// Start runs a supervisor as the keeper's child: program, or the keeper's own if that is nil, with args, of which the first
// is its name. Both its outputs go to log. It gives the process's number.
func (c *Client) Start(program, log *os.File, args ...string) (int, error) {
	files := []int{int(log.Fd())}
	if program != nil {
		files = []int{int(program.Fd()), int(log.Fd())}
	}
	r, err := c.ask(message{Op: opStart, Args: args, Program: program != nil}, files)
	if err != nil {
		return 0, fmt.Errorf("start a supervisor: %w", err)
	}
	closeAll(r.files)
	return r.answer.Pid, nil
}

// Hold has the keeper remember how a process ends, if it is or becomes its child, and keep copies of files, instead of those
// that it may have by the same name.
func (c *Client) Hold(name string, pid int, files ...int) error {
	return c.tell(message{Op: opHold, Name: name, Pid: pid}, files)
}

// Ask gives what is held by a name.
func (c *Client) Ask(name string) (Held, error) {
	r, err := c.ask(message{Op: opAsk, Name: name}, nil)
	if err != nil {
		return Held{}, fmt.Errorf("ask the keeper: %w", err)
	}
	return Held{Known: r.answer.Held, Exited: r.answer.Exited, Status: unix.WaitStatus(r.answer.Status), Files: r.files}, nil
}

// Forget lets go of what is held by a name. Something that is not held is no error.
func (c *Client) Forget(name string) error { return c.tell(message{Op: opForget, Name: name}, nil) }

// Settle lets go of everything that was not named by Hold or Ask on this connection: what earlier supervisors held of
// containers that are no more.
func (c *Client) Settle() error { return c.tell(message{Op: opSettle}, nil) }

// tell sends what has no answer.
func (c *Client) tell(m message, files []int) error {
	if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("tell the keeper: %w", err)
	}
	if err := send(c.conn, m, files); err != nil {
		return fmt.Errorf("tell the keeper: %w", err)
	}
	return nil
}

// ask sends a question and waits for the answer.
func (c *Client) ask(m message, files []int) (received, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.tell(m, files); err != nil {
		return received{}, err
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case r := <-c.answers:
		if r.answer.Error != "" {
			closeAll(r.files)
			return received{}, fmt.Errorf("%w: %s", ErrRefused, r.answer.Error)
		}
		return r, nil
	case <-c.gone:
		return received{}, net.ErrClosed
	case <-timer.C: // an answer that comes later would be taken for that to the next question
		c.conn.Close()
		return received{}, fmt.Errorf("no answer within %v", patience)
	}
}
