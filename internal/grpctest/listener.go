package grpctest

import (
	"context"
	"net"
	"sync"
)

// Listener is a net.Listener in memory, for gRPC and TLS in a bubble of synctest, in the place of grpc's bufconn: that starts
// timers that are due at once, and two of them at a time in one bubble crash the race detector (go.dev/issue/78156).
type Listener struct {
	accept chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// Listen returns a listener. It holds nothing that has to be freed, but Close ends those who wait.
func Listen() *Listener {
	return &Listener{accept: make(chan net.Conn), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.accept:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Connections stay.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "memory" }
func (address) String() string  { return "memory" }

// DialContext connects to the listener, and waits until it accepts.
func (l *Listener) DialContext(ctx context.Context) (net.Conn, error) {
	ours, theirs := connect()
	select {
	case l.accept <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Dial connects to the listener.
func (l *Listener) Dial() (net.Conn, error) { return l.DialContext(context.Background()) }
