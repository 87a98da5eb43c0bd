package grpctest

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// connect gives the two ends of a connection. Writing never waits: what the other end has not read yet is kept.
func connect() (net.Conn, net.Conn) {
	there, back := newStream(), newStream()
	return &conn{in: back, out: there}, &conn{in: there, out: back}
}

// conn is one end. Its writes need no deadline.
type conn struct{ in, out *stream }

func (c *conn) Read(p []byte) (int, error)         { return c.in.read(p) }
func (c *conn) Write(p []byte) (int, error)        { return c.out.write(p) }
func (c *conn) LocalAddr() net.Addr                { return address{} }
func (c *conn) RemoteAddr() net.Addr               { return address{} }
func (c *conn) SetDeadline(t time.Time) error      { return c.SetReadDeadline(t) }
func (c *conn) SetReadDeadline(t time.Time) error  { c.in.setDeadline(t); return nil }
func (c *conn) SetWriteDeadline(_ time.Time) error { return nil }

// Close ends both directions: the other end reads what is there and then io.EOF, and can't write any more.
func (c *conn) Close() error {
	c.in.setDeadline(time.Time{}) // no timer outlives the connection
	c.in.close(net.ErrClosed)
	c.out.close(io.EOF)
	return nil
}

// stream is one direction of a connection.
type stream struct {
	mu       sync.Mutex // guards all below
	data     bytes.Buffer
	end      error         // what a reader gets after the data, once closed, or nil
	deadline *time.Timer   // or nil
	late     bool          // the deadline is over
	changed  chan struct{} // closed, and replaced, when a reader must look again
}

func newStream() *stream { return &stream{changed: make(chan struct{})} }

func (s *stream) wakeLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *stream) read(p []byte) (int, error) {
	for {
		s.mu.Lock()
		n, err, done := s.takeLocked(p)
		changed := s.changed
		s.mu.Unlock()
		if done {
			return n, err
		}
		<-changed
	}
}

// takeLocked reads what there is, or says that there is nothing yet.
func (s *stream) takeLocked(p []byte) (n int, err error, done bool) {
	switch {
	case errors.Is(s.end, net.ErrClosed):
		return 0, s.end, true
	case s.late:
		return 0, os.ErrDeadlineExceeded, true
	case s.data.Len() > 0:
		n, err = s.data.Read(p)
		return n, err, true
	}
	return 0, s.end, s.end != nil
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return 0, io.ErrClosedPipe
	}
	s.wakeLocked()
	return s.data.Write(p)
}

// close ends the stream. A reader's own end counts more than the writer's.
func (s *stream) close(end error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end == nil || errors.Is(end, net.ErrClosed) {
		s.end = end
	}
	s.wakeLocked()
}

func (s *stream) setDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deadline != nil {
		s.deadline.Stop()
		s.deadline = nil
	}
	wait := time.Until(t)
	s.late = !t.IsZero() && wait <= 0
	if !t.IsZero() && wait > 0 {
		s.deadline = time.AfterFunc(wait, func() { s.setDeadline(t) })
	}
	s.wakeLocked()
}
