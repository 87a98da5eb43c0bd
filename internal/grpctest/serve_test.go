package grpctest_test

import (
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"

	"github.com/skep-io/skep/internal/grpctest"
)

// A test that makes no call ends before its server begins, now and then.
func TestServe_StoppedBeforeItBegins(t *testing.T) {
	for range 1000 {
		grpctest.Serve(t, grpc.NewServer(), grpctest.Listen())()
	}
}

func TestServe_UntilTheTestEnds(t *testing.T) {
	var conn *grpc.ClientConn
	t.Run("serving", func(t *testing.T) {
		listener := grpctest.Listen()
		grpctest.Serve(t, grpc.NewServer(), listener)
		conn = grpctest.Dial(t, listener)
		for conn.Connect(); conn.GetState() != connectivity.Ready; conn.WaitForStateChange(t.Context(), conn.GetState()) {
			if t.Context().Err() != nil {
				t.Fatal("nobody serves")
			}
		}
	})
	if got := conn.GetState(); got != connectivity.Shutdown {
		t.Errorf("after the test the connection is %v", got)
	}
}

// judged hears that its test failed.
type judged struct {
	testing.TB
	failed chan struct{}
}

func (j judged) Errorf(string, ...any) { close(j.failed) }

func TestServe_FailsTheTestIfItCannot(t *testing.T) {
	j := judged{t, make(chan struct{})}
	grpctest.Serve(j, grpc.NewServer(), broken{grpctest.Listen()})
	<-j.failed
}

// broken accepts nothing.
type broken struct{ *grpctest.Listener }

func (broken) Accept() (net.Conn, error) { return nil, net.ErrClosed }
