package catest

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc/test/bufconn"
)

// Listener is a bufconn.Listener for TLS in a bubble of synctest. A TLS connection that is closed gets a write deadline of that very
// moment; bufconn starts a timer for it, and such a timer now and then crashes the race detector in a bubble (Go 1.26.8, a
// SIGSEGV in timer.modify). The connection is closed right after, so the deadline is left out.
type Listener struct{ *bufconn.Listener }

// Listen returns a listener whose connections buffer so many bytes.
func Listen(buffer int) Listener { return Listener{bufconn.Listen(buffer)} }

// Accept implements net.Listener.
func (l Listener) Accept() (net.Conn, error) { return patient(l.Listener.Accept()) }

// DialContext connects to the listener.
func (l Listener) DialContext(ctx context.Context) (net.Conn, error) {
	return patient(l.Listener.DialContext(ctx))
}

// patientConn ignores write deadlines that are over.
type patientConn struct{ net.Conn }

func patient(c net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return patientConn{c}, nil
}

// SetWriteDeadline implements net.Conn.
func (c patientConn) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() && !t.After(time.Now()) {
		return nil
	}
	return c.Conn.SetWriteDeadline(t)
}
