package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/skep-io/skep/runtime/cgroup"
	"github.com/skep-io/skep/runtime/protocol"
)

// The messages are the protocol's.
type (
	// Request describes a container to create.
	Request = protocol.Request
	// Rootfs is a container's root file system.
	Rootfs = protocol.Rootfs
	// File is a file that the container sees and that is in memory only.
	File = protocol.File
	// Secret is the data of a File. It prints as "[redacted]".
	Secret = protocol.Secret
	// LogConfig says where a container's output goes.
	LogConfig = protocol.LogConfig
	// State is what is known of a container.
	State = protocol.State
	// Status is where in its life a container is.
	Status = protocol.Status
	// Event is one change of a container.
	Event = protocol.Event
	// Stats are what a container has used.
	Stats = protocol.Stats
	// Pressure is how much a container waited for a resource.
	Pressure = cgroup.Pressure
	// Stall is a share of time.
	Stall = cgroup.Stall
	// EventType says what an Event is about.
	EventType = protocol.EventType
)

// The statuses and events, as in package protocol.
const (
	Created = protocol.Created
	Running = protocol.Running
	Exited  = protocol.Exited

	EventSnapshot = protocol.EventSnapshot
	EventSynced   = protocol.EventSynced
	EventCreated  = protocol.EventCreated
	EventRunning  = protocol.EventRunning
	EventOOM      = protocol.EventOOM
	EventExited   = protocol.EventExited
	EventDeleted  = protocol.EventDeleted
)

// Errors of the supervisor, and of this package.
var (
	ErrNotFound = protocol.ErrNotFound
	ErrExists   = protocol.ErrExists
	ErrInvalid  = protocol.ErrInvalid
	ErrState    = protocol.ErrState
	ErrStart    = protocol.ErrStart
	// ErrNoProgram is of Exec: what to run, or the directory to run it in, is not there.
	ErrNoProgram = protocol.ErrNoProgram
	// ErrClosed is returned when a Client is used after Close.
	ErrClosed = errors.New("client is closed")
)

// maxIdle is how many connections are kept between calls.
const maxIdle = 4

// Client is a way to one supervisor.
type Client struct {
	socket string // constant after Dial

	mu     sync.Mutex // guards all below
	idle   []net.Conn
	closed bool
}

// Dial connects to the supervisor at socket. The caller closes the Client.
func Dial(ctx context.Context, socket string) (*Client, error) {
	c := &Client{socket: socket}
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	c.idle = append(c.idle, conn)
	return c, nil
}

// Close closes the connections that are not in use. It ends no call and no event stream: their contexts do.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	var errs []error
	for _, conn := range c.idle {
		errs = append(errs, conn.Close())
	}
	c.idle = nil
	return errors.Join(errs...)
}

func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, fmt.Errorf("connect to the container supervisor: %w", err)
	}
	return conn, nil
}

// take gives a connection: an idle one, which may turn out to be dead, or a new one.
func (c *Client) take(ctx context.Context) (conn net.Conn, reused bool, err error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, false, ErrClosed
	}
	if n := len(c.idle); n > 0 {
		conn, c.idle = c.idle[n-1], c.idle[:n-1]
		c.mu.Unlock()
		return conn, true, nil
	}
	c.mu.Unlock()
	conn, err = c.dial(ctx)
	return conn, false, err
}

// give keeps a connection for the next call.
func (c *Client) give(conn net.Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || len(c.idle) >= maxIdle {
		conn.Close()
		return
	}
	c.idle = append(c.idle, conn)
}

// call makes one call. A kept connection that the supervisor closed, by being restarted, is noticed before anything
// was sent; then the call goes out on a new one.
func (c *Client) call(ctx context.Context, call protocol.Call, attachment ...[]byte) (protocol.Reply, error) {
	for tries := maxIdle; ; {
		conn, reused, err := c.take(ctx)
		if err != nil {
			return protocol.Reply{}, err
		}
		if reused && hungUp(conn) {
			conn.Close()
			continue
		}
		reply, err := exchange(ctx, conn, call, attachment)
		if errors.Is(err, syscall.EPIPE) && tries > 0 { // it takes no more calls there, and has not read this one
			conn.Close()
			tries--
			continue
		}
		if err != nil {
			conn.Close()
			return protocol.Reply{}, fmt.Errorf("%s container: %w", call.Op, err)
		}
		c.give(conn)
		return reply, reply.Error.Err()
	}
}

// hungUp reports whether the peer of an idle connection has closed it.
func hungUp(conn net.Conn) bool {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return true
	}
	dead := false
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		dead = !errors.Is(err, syscall.EAGAIN) // nothing is ever sent unasked
		return true
	})
	return err != nil || dead
}

// exchange sends a call and receives the reply.
func exchange(ctx context.Context, conn net.Conn, call protocol.Call, attachment [][]byte) (protocol.Reply, error) {
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return protocol.Reply{}, err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = conn.SetDeadline(time.Unix(1, 0)) // fails only if the connection is closed
	})
	err := protocol.Write(conn, call, attachment...)
	var reply protocol.Reply
	if err == nil {
		_, err = protocol.Read(conn, &reply)
	}
	if !stop() {
		<-interrupted
		if err != nil {
			err = context.Cause(ctx)
		}
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("the supervisor closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return reply, err
}

// Create makes a container: namespaces, control group, root file system, mounts and files are ready when it returns,
// and the process waits for Start. The data of the request's files is sent and not kept.
func (c *Client) Create(ctx context.Context, r Request) (State, error) {
	sent, parts, err := r.Detach()
	if err != nil {
		return State{}, fmt.Errorf("create container: %w", err)
	}
	reply, err := c.call(ctx, protocol.Call{Op: protocol.OpCreate, Request: &sent}, parts...)
	return stateOf(reply, err)
}

// Rewrite gives files of a running container new contents: who opens one has the old content or the new one, as a whole. The files are
// described as they were to Create, where each of them was. After an error some may be new; another try with the same files completes it.
// ErrState is returned for a container that isn't running, or in which the files are not where Create put them.
func (c *Client) Rewrite(ctx context.Context, id string, files []File) error {
	sent, parts, err := Request{Files: files}.Detach()
	if err != nil {
		return fmt.Errorf("rewrite files of container %s: %w", id, err)
	}
	_, err = c.call(ctx, protocol.Call{Op: protocol.OpRewrite, ID: id, Request: &sent}, parts...)
	return err
}

// Start runs the container's program. It returns when that runs, or ErrStart with the reason if it can't be run; then
// the container exits with 126 or 127.
func (c *Client) Start(ctx context.Context, id string) error {
	_, err := c.call(ctx, protocol.Call{Op: protocol.OpStart, ID: id})
	return err
}

// State gives a container's state.
func (c *Client) State(ctx context.Context, id string) (State, error) {
	reply, err := c.call(ctx, protocol.Call{Op: protocol.OpState, ID: id})
	return stateOf(reply, err)
}

// List gives the states of all containers, in the order of their names.
func (c *Client) List(ctx context.Context) ([]State, error) {
	reply, err := c.call(ctx, protocol.Call{Op: protocol.OpList})
	return reply.States, err
}

// Stats gives what the container has used, or ErrState when its control group is gone.
func (c *Client) Stats(ctx context.Context, id string) (Stats, error) {
	reply, err := c.call(ctx, protocol.Call{Op: protocol.OpStats, ID: id})
	if err == nil && reply.Stats == nil {
		err = fmt.Errorf("%w: reply without statistics", protocol.ErrFrame)
	}
	if err != nil {
		return Stats{}, err
	}
	return *reply.Stats, nil
}

// Kill sends a signal to the container's first process. As in every pid namespace, that process gets only signals that
// it has a handler for, and SIGKILL.
func (c *Client) Kill(ctx context.Context, id string, sig syscall.Signal) error {
	_, err := c.call(ctx, protocol.Call{Op: protocol.OpKill, ID: id, Signal: int(sig)})
	return err
}

// KillAll kills every process of the container with SIGKILL.
func (c *Client) KillAll(ctx context.Context, id string) error {
	_, err := c.call(ctx, protocol.Call{Op: protocol.OpKillAll, ID: id})
	return err
}

// Delete forgets a container that has exited, with its exit code and all that it was made of, but neither its log nor
// its writable layer. A container that was never started is killed first, as soon as it is made; a running one is refused with ErrState.
func (c *Client) Delete(ctx context.Context, id string) error {
	_, err := c.call(ctx, protocol.Call{Op: protocol.OpDelete, ID: id})
	return err
}

// Peer gives the number of the supervisor's process.
func (c *Client) Peer(ctx context.Context) (int, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	cred, err := protocol.Peer(conn.(*net.UnixConn))
	if err != nil {
		return 0, fmt.Errorf("find the container supervisor's process: %w", err)
	}
	return int(cred.Pid), nil
}

// Gone returns when the supervisor is not there, ends or upgrades itself, or when ctx ends.
func (c *Client) Gone(ctx context.Context) {
	conn, err := c.dial(ctx)
	if err != nil {
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	_, _ = io.Copy(io.Discard, conn) // it says nothing unasked
}

// Upgrade has the supervisor replace itself by the program at an absolute path, in the same process: containers go on, and those
// that wait for Start still do. When it returns, the supervisor has tried that program and makes way for it; calls that
// come later are answered by the next one. Streams of events end, and so do commands that run by Exec and have a client.
func (c *Client) Upgrade(ctx context.Context, program string) error {
	_, err := c.call(ctx, protocol.Call{Op: protocol.OpUpgrade, Program: program})
	return err
}

// Events gives the state of every container (EventSnapshot), then EventSynced, and then every change as it happens.
// The channel is closed when ctx ends, when the supervisor does, or when the receiver is thousands of events behind;
// nothing is lost by that, since the next stream begins with the state of everything.
func (c *Client) Events(ctx context.Context) (<-chan Event, error) {
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := protocol.Write(conn, protocol.Call{Op: protocol.OpEvents}); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	events := make(chan Event)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	go func() { // ends with the connection or ctx
		defer close(events)
		defer conn.Close()
		defer stop()
		for {
			var reply protocol.Reply
			if _, err := protocol.Read(conn, &reply); err != nil || reply.Event == nil {
				return
			}
			select {
			case events <- *reply.Event:
			case <-ctx.Done():
				return
			}
		}
	}()
	return events, nil
}

// stateOf takes the state out of a reply.
func stateOf(reply protocol.Reply, err error) (State, error) {
	if err != nil {
		return State{}, err
	}
	if reply.State == nil {
		return State{}, fmt.Errorf("%w: reply without a state", protocol.ErrFrame)
	}
	return *reply.State, nil
}
