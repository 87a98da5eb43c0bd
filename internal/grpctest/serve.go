// Package grpctest serves gRPC to tests, and connects to it in memory.
package grpctest

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Serve serves on a listener until stop is called or the test ends, and waits then until nothing serves any more. A server that
// fails fails the test; one that is stopped before it had begun to serve does not, as a test may need no call.
func Serve(t testing.TB, server *grpc.Server, listener net.Listener) (stop func()) {
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			t.Errorf("serve: %v", err)
		}
	})
	stop = sync.OnceFunc(func() {
		server.Stop()
		serving.Wait()
	})
	t.Cleanup(stop)
	return stop
}

// Dial connects to what serves on a listener, unencrypted, until the test ends.
func Dial(t testing.TB, listener *Listener) *grpc.ClientConn {
	t.Helper()
	conn, err := NewClient(listener.DialContext)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// NewClient connects by dial, unencrypted, for one who closes the connection.
func NewClient(dial func(context.Context) (net.Conn, error)) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///memory", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }))
}
