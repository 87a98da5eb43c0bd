package daemon

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/authz"
)

// serveInert serves a daemon's socket. A call that gets through to its handler is answered with DataLoss instead.
func serveInert(t *testing.T, d *Daemon) (*grpc.Server, *grpc.ClientConn) {
	t.Helper()
	reached := status.Error(codes.DataLoss, "reached")
	server := d.localServer(grpc.Creds(authz.SocketCredentials(authz.NoGroup)),
		grpc.ChainUnaryInterceptor(func(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) { return nil, reached }),
		grpc.ChainStreamInterceptor(func(any, grpc.ServerStream, *grpc.StreamServerInfo, grpc.StreamHandler) error { return reached }))
	socket := filepath.Join(t.TempDir(), "skep.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	grpctest.Serve(t, server, listener)
	conn, err := grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return server, conn
}

// call makes a call of any kind with an empty message.
func call(ctx context.Context, conn *grpc.ClientConn, method string) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(&emptypb.Empty{})
}

// TestLocked_AnswersNothingElse calls every RPC of the socket of a locked manager.
func TestLocked_AnswersNothingElse(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, whose calls the socket takes")
	}
	d := newTestDaemon(t)
	server, conn := serveInert(t, d)
	answered := map[string]bool{
		api.Daemon_GetInfo_FullMethodName: true, api.Daemon_UnlockSwarm_FullMethodName: true, api.Daemon_LeaveSwarm_FullMethodName: true,
		api.Daemon_RejoinSwarm_FullMethodName: true, // by force only, and with the unlock key
	}
	for _, locked := range []bool{true, false} {
		d.mu.Lock()
		d.locked = locked
		d.mu.Unlock()
		calls, refused := 0, 0
		for service, info := range server.GetServiceInfo() {
			for _, m := range info.Methods {
				method := "/" + service + "/" + m.Name
				err := call(t.Context(), conn, method)
				if status.Code(err) == codes.PermissionDenied {
					continue // not for people, locked or not
				}
				calls++
				isLocked := strings.Contains(status.Convert(err).Message(), "needs to be unlocked")
				if isLocked {
					refused++
				}
				if isLocked != (locked && !answered[method]) {
					t.Errorf("locked %v: %s: %v", locked, method, err)
				}
			}
		}
		if calls < 30 || locked && refused != calls-len(answered) {
			t.Errorf("locked %v: %d calls, %d refused", locked, calls, refused)
		}
	}
}

// What a locked node tells of itself is about the machine, not about its swarm.
func TestLocked_InfoIsLimited(t *testing.T) {
	d := newTestDaemon(t)
	d.locked = true
	info := &api.GetInfoResponse{}
	d.describeMembership(info)
	if info.GetState() != api.LocalNodeState_LOCAL_NODE_STATE_LOCKED {
		t.Errorf("state %v", info.GetState())
	}
	if info.State = 0; info.String() != "" {
		t.Errorf("a locked node says: %v", info)
	}
}
