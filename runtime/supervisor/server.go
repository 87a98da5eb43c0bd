package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/protocol"
)

// maxConnections bounds the connections at once: an agent uses a handful, and one for each exec.
const maxConnections = 1024

// writeTime bounds the sending of one message to a client that doesn't read.
const writeTime = 30 * time.Second

// A socket may outlive its supervisor for a moment, in children that were just forked.
const (
	socketTries = 40
	socketPause = 25 * time.Millisecond
)

// listen opens the socket. One that is left from a supervisor that has ended is replaced.
func listen(path string) (*net.UnixListener, error) {
	for try := 1; ; try++ {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			break
		}
		conn.Close()
		if try == socketTries {
			return nil, fmt.Errorf("%w: something answers at %s", ErrInUse, path)
		}
		time.Sleep(socketPause)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replace socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect socket: %w", err)
	}
	return l, nil
}

// server is the connections of one Run.
type server struct {
	*Supervisor
	stop func() // ends serve
	wg   sync.WaitGroup

	mu    sync.Mutex // guards all below
	conns map[*net.UnixConn]bool
	over  bool
}

// serve answers clients until ctx ends, or until one asks for another program, and returns when the last request is
// answered. In the second case it gives the socket.
func (s *Supervisor) serve(ctx context.Context, l *net.UnixListener) (passed *os.File, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	v := &server{Supervisor: s, stop: cancel, conns: make(map[*net.UnixConn]bool)}
	stop := context.AfterFunc(ctx, func() { // accepts nobody any more
		_ = l.SetDeadline(time.Unix(1, 0)) // fails only for a listener that is closed
	})
	defer stop()
	for {
		conn, failed := l.AcceptUnix()
		if failed != nil {
			if ctx.Err() == nil {
				err = fmt.Errorf("accept client: %w", failed)
			}
			break
		}
		v.take(conn)
	}
	if s.Next() != nil { // who connects from here on waits for the next program
		var failed error
		passed, failed = l.File()
		err = errors.Join(err, failed)
		l.SetUnlinkOnClose(false)
	}
	l.Close()
	v.finish()
	v.wg.Wait()
	return passed, err
}

// take begins to serve a connection, if its peer may and there is room.
func (v *server) take(conn *net.UnixConn) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if err := protocol.Allowed(conn); err != nil || len(v.conns) >= maxConnections {
		v.logger.Warn("client refused", "error", err, "connections", len(v.conns))
		conn.Close()
		return
	}
	v.conns[conn] = true
	v.wg.Go(func() {
		v.talk(conn)
		v.mu.Lock()
		delete(v.conns, conn)
		v.mu.Unlock()
		conn.Close()
	})
}

// finish ends idle connections and event streams. Requests under way, and those that have arrived, are still answered; later
// ones fail when they are sent, so that the client knows that nobody has seen them.
func (v *server) finish() {
	v.mu.Lock()
	v.over = true
	for conn := range v.conns {
		// It fails only for a connection that is closed already.
		_ = conn.CloseRead()
	}
	v.mu.Unlock()
	v.Supervisor.mu.Lock()
	defer v.Supervisor.mu.Unlock()
	for sub := range v.subscribers {
		v.cutOffLocked(sub)
	}
}

// talk answers the calls of one client, one after the other.
func (v *server) talk(conn *net.UnixConn) {
	for {
		var call protocol.Call
		attachment, err := protocol.Read(conn, &call)
		if err != nil {
			if errors.Is(err, protocol.ErrFrame) {
				v.reply(conn, protocol.Reply{Error: protocol.NewFailure(fmt.Errorf("%w: %w", protocol.ErrInvalid, err))})
			} else if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) {
				v.logger.Info("client lost", "error", err)
			}
			return
		}
		switch call.Op {
		case protocol.OpEvents:
			v.stream(conn)
			return
		case protocol.OpAttach:
			v.attach(conn, call)
			return
		case protocol.OpExec, protocol.OpCopy:
			v.session(conn, call)
			return
		}
		reply := v.answer(call, attachment)
		clear(attachment) // I3
		if !v.reply(conn, reply) {
			if call.Op == protocol.OpCreate && reply.Error == nil {
				v.takeBack(*reply.State)
			}
			return
		}
	}
}

// takeBack removes a container whose client went away before it was made (I6): the client's successor may have asked before that
// what there is, and nobody would ever delete it.
func (v *server) takeBack(made protocol.State) {
	err := v.removeMade(made)
	switch {
	case err == nil:
		v.logger.Info("container taken back, its client is lost", "id", made.ID)
	case errors.Is(err, protocol.ErrNotFound), errors.Is(err, protocol.ErrState): // somebody knows of it
	default:
		v.logger.Error("container left, its client is lost", "id", made.ID, "error", err)
	}
}

func (v *server) removeMade(made protocol.State) error {
	c, err := v.find(made.ID)
	if err != nil {
		return err
	}
	if now, err := v.state(made.ID); err != nil || !now.CreatedAt.Equal(made.CreatedAt) {
		return protocol.ErrNotFound // the name is another one's already
	}
	return v.remove(context.Background(), c)
}

func (v *server) reply(conn *net.UnixConn, reply protocol.Reply) bool {
	if err := conn.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
		return false
	}
	if err := protocol.Write(conn, reply); err != nil {
		v.logger.Info("client lost", "error", err)
		return false
	}
	return true
}

// answer carries out a call. A client that goes away meanwhile does not stop it half way.
func (v *server) answer(call protocol.Call, attachment []byte) protocol.Reply {
	reply, err := v.carryOut(context.Background(), call, attachment)
	reply.Error = protocol.NewFailure(err)
	return reply
}

func (v *server) carryOut(ctx context.Context, call protocol.Call, attachment []byte) (protocol.Reply, error) {
	switch call.Op {
	case protocol.OpCreate:
		if call.Request == nil {
			return protocol.Reply{}, fmt.Errorf("%w: create without a request", protocol.ErrInvalid)
		}
		if err := call.Request.Attach(attachment); err != nil {
			return protocol.Reply{}, fmt.Errorf("%w: %w", protocol.ErrInvalid, err)
		}
		state, err := v.create(ctx, call.Request)
		return protocol.Reply{State: &state}, err
	case protocol.OpUpgrade:
		return protocol.Reply{}, v.upgrade(call.Program)
	case protocol.OpList:
		return protocol.Reply{States: v.list()}, nil
	case protocol.OpState:
		state, err := v.state(call.ID)
		return protocol.Reply{State: &state}, err
	case protocol.OpDelete:
		v.awaitMade(call.ID) // who called a creation off deletes what comes of it
	}
	c, err := v.find(call.ID)
	if err != nil {
		return protocol.Reply{}, err
	}
	switch call.Op {
	case protocol.OpStats:
		return v.stats(c)
	case protocol.OpStart:
		err = v.start(ctx, c)
	case protocol.OpKill:
		err = v.kill(c, call.Signal)
	case protocol.OpKillAll:
		err = v.signal(c, unix.SIGKILL, true)
	case protocol.OpDelete:
		err = v.remove(ctx, c)
	case protocol.OpPause:
		err = v.pause(ctx, c)
	case protocol.OpResume:
		err = v.resume(c)
	case protocol.OpRewrite:
		err = v.carryOutRewrite(c, call, attachment)
	case protocol.OpTop:
		processes, err := v.top(c)
		return protocol.Reply{Processes: processes}, err
	default:
		err = fmt.Errorf("%w: unknown operation %.32q", protocol.ErrInvalid, call.Op)
	}
	return protocol.Reply{}, err
}

// stats reads what a container that runs has used.
func (s *Supervisor) stats(c *container) (protocol.Reply, error) {
	used, err := c.group.Stats()
	if errors.Is(err, fs.ErrNotExist) {
		return protocol.Reply{}, fmt.Errorf("%w: container %s is not running", protocol.ErrState, c.id)
	}
	return protocol.Reply{Stats: &protocol.Stats{Time: s.now(), Stats: used}}, err
}

// lastSignal is the highest signal number.
const lastSignal = 64

func (v *server) kill(c *container, sig int) error {
	if sig < 1 || sig > lastSignal {
		return fmt.Errorf("%w: no signal %d", protocol.ErrInvalid, sig)
	}
	return v.signal(c, unix.Signal(sig), false)
}

// stream sends events until the client or the supervisor ends it.
func (v *server) stream(conn *net.UnixConn) {
	sub := v.subscribe()
	gone := make(chan struct{})
	go func() { // a client says nothing on a stream, so reading ends when it goes
		defer close(gone)
		_, _ = io.Copy(io.Discard, conn)
		v.unsubscribe(sub)
	}()
	v.mu.Lock()
	over := v.over
	v.mu.Unlock()
	if over { // it began too late to be ended by finish
		v.unsubscribe(sub)
	}
	for e := range sub.events {
		if !v.reply(conn, protocol.Reply{Event: e}) {
			break
		}
	}
	conn.Close()
	<-gone
}
