package exec

import (
	"context"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/runtime/client"
)

// attach passes on what the first process of a container prints from now on, and what is typed into its terminal, if it has one.
func (s *Server) attach(stream stream, id string, start *api.AttachStart) error {
	first, err := s.Runtime.Attach(stream.Context(), id)
	if err != nil {
		return kinded(err)
	}
	a := &attachment{Attachment: first, again: func(ctx context.Context) (*client.Attachment, error) { return s.Runtime.Attach(ctx, id) }}
	defer a.Close()
	terminal := first.Terminal != nil
	if err := begin(stream, id, terminal); err != nil {
		return err
	}
	x := &session{stream: stream, p: a, ended: make(chan struct{})}
	if terminal && start.GetStdin() {
		x.stdin = first.Terminal
	}
	if size := sizeOf(start.GetTerminal()); size != nil && size.Rows > 0 && size.Cols > 0 {
		_ = a.Resize(*size) // it fails only for a terminal that has ended
	}
	x.outputs = []output{{file: first.Stdout, wrap: stdout, next: a.follow(x, func(n *client.Attachment) *os.File { return n.Stdout })}}
	if !terminal {
		next := a.follow(x, func(n *client.Attachment) *os.File { return n.Stderr })
		x.outputs = append(x.outputs, output{file: first.Stderr, wrap: stderr, next: next})
	}
	code, err := x.run(stream.Context())
	if err != nil {
		return err
	}
	return end(stream, code, "")
}

// attachment looks at a container, and looks again when it was cut off.
type attachment struct {
	*client.Attachment
	again func(ctx context.Context) (*client.Attachment, error)

	mu     sync.Mutex // guards all below
	more   map[*client.Attachment]bool
	closed bool
}

// Wait is the first attachment's. With an error, such as the end of the stream, nothing is read any more.
func (a *attachment) Wait(ctx context.Context) (int, error) {
	code, err := a.Attachment.Wait(ctx)
	if err != nil {
		a.Close()
	}
	return code, err
}

// Close ends the attachment. The container goes on.
func (a *attachment) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	_ = a.Attachment.Close() // nothing was written through it that could be lost
	for n := range a.more {
		_ = n.Close() // likewise
	}
	a.more = nil
}

// lost is what is told of output that came faster than it was taken.
const lost = "skep: output is missing here: it came faster than this side took it\r\n"

// follow gives what finds the file to go on with when the end of an output was read: none if that was the end of what the container
// prints, and otherwise that of a new attachment, since the runtime has no patience with those who read too slowly.
func (a *attachment) follow(s *session, which func(*client.Attachment) *os.File) func() *os.File {
	var current *client.Attachment // or nil: the first
	return func() *os.File {
		n, err := a.again(s.stream.Context())
		if err != nil {
			return nil // it has ended, and Wait tells how; or the runtime has
		}
		f := which(n)
		for _, other := range []*os.File{n.Stdout, n.Stderr, n.Terminal} {
			if other != nil && other != f {
				other.Close() // or it would fill
			}
		}
		if f == nil || atEnd(f) || !a.replace(current, n) {
			_ = n.Close() // as in Close
			return nil
		}
		current = n
		if s.send(stderr([]byte(lost))) != nil {
			return nil // the stream has ended
		}
		return f
	}
}

// replace has Close close an attachment in the place of the one before, which may be nil. It reports whether it was in time.
func (a *attachment) replace(before, n *client.Attachment) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	if before != nil {
		delete(a.more, before)
		_ = before.Close() // as in Close
	}
	if a.more == nil {
		a.more = make(map[*client.Attachment]bool)
	}
	a.more[n] = true
	return true
}

// atEnd reports whether nothing more will come from a pipe that nothing was read from.
func atEnd(f *os.File) bool {
	conn, err := f.SyscallConn()
	if err != nil {
		return true
	}
	ended := true
	err = conn.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, 0)
		for errors.Is(err, unix.EINTR) {
			n, err = unix.Poll(poll, 0)
		}
		// A pipe without a writer is hung up, whatever is in it.
		ended = err == nil && n > 0 && poll[0].Revents&unix.POLLIN == 0
	})
	return err != nil || ended
}
