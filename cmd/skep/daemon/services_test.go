package daemon

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store/seal"
)

// oneAnswer answers one call, and one stream.
type oneAnswer struct {
	api.UnimplementedControlServer
}

func (oneAnswer) ListSecrets(context.Context, *api.ListSecretsRequest) (*api.ListSecretsResponse, error) {
	return &api.ListSecretsResponse{}, nil
}

// serveAs serves people on a socket where everybody is an admin, or nobody.
func serveAs(t *testing.T, d *Daemon, admin bool) api.ControlClient {
	t.Helper()
	path := filepath.Join(t.TempDir(), "skep.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := d.localServer(grpc.Creds(everybody{authz.SocketCredentials(authz.NoGroup), admin}))
	grpctest.Serve(t, server, listener)
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
	})
	return api.NewControlClient(conn)
}

// everybody makes all peers of a unix socket admins, or none.
type everybody struct {
	credentials.TransportCredentials
	admin bool
}

func (e everybody) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := e.TransportCredentials.ServerHandshake(c)
	if peer, ok := info.(authz.SocketPeer); ok {
		peer.Admin = e.admin
		info = peer
	}
	return conn, info, err
}

func (e everybody) Clone() credentials.TransportCredentials { return e }

func TestManagedServices_ComeAndGoWhileTheServerRuns(t *testing.T) {
	d := newTestDaemon(t)
	client, stranger := serveAs(t, d, true), serveAs(t, d, false)
	call := func(c api.ControlClient) codes.Code {
		_, err := c.ListSecrets(t.Context(), &api.ListSecretsRequest{})
		return status.Code(err)
	}
	stream := func(c api.ControlClient) codes.Code {
		s, err := c.WatchService(t.Context(), &api.WatchServiceRequest{})
		if err == nil {
			_, err = s.Recv()
		}
		return status.Code(err)
	}
	check := func(when string, want, streamed codes.Code) {
		t.Helper()
		if got := call(client); got != want {
			t.Errorf("%s: got %v, want %v", when, got, want)
		}
		if got := stream(client); got != streamed {
			t.Errorf("%s, stream: got %v, want %v", when, got, streamed)
		}
		// Whoever may not call learns nothing of the node's state.
		if call, stream := call(stranger), stream(stranger); call != codes.Unauthenticated || stream != codes.Unauthenticated {
			t.Errorf("%s, a stranger: got %v and %v", when, call, stream)
		}
	}
	check("without a manager", codes.FailedPrecondition, codes.FailedPrecondition)
	for range 2 {
		api.RegisterControlServer(d.managed, oneAnswer{})
		check("promoted", codes.OK, codes.Unimplemented)
		forwarded := 0
		d.managed.arrive(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			forwarded++
			return handler(ctx, request)
		}, nil, nil, nil)
		check("promoted, with its interceptor", codes.OK, codes.Unimplemented)
		if forwarded != 1 {
			t.Errorf("the manager's interceptor saw %d calls", forwarded)
		}
		d.managed.depart()
		check("demoted", codes.FailedPrecondition, codes.FailedPrecondition)
	}
}

func TestAbsence_SaysTheTrueState(t *testing.T) {
	d := newTestDaemon(t)
	worker := d.newNode(membership{}, nil, ca.NewIdentity(workerCredentials(t)), seal.Key{}, 0)
	manager := d.newNode(membership{}, nil, ca.NewIdentity(managerCredentials(t)), seal.Key{}, 0)
	for _, test := range []struct {
		name   string
		become func()
		want   error
		kind   fault.Kind
	}{
		{"in no swarm", func() {}, errNotManager, fault.Precondition},
		{"locked", func() { d.locked = true }, errLocked, fault.Precondition},
		{"broken", func() { d.locked, d.broken = false, errMembership }, errMembership, fault.Precondition},
		{"worker", func() { d.broken, d.current = nil, worker }, errWorker, fault.Precondition},
		{"manager that starts", func() { d.current = manager }, errNotYet, fault.Unavailable},
	} {
		test.become()
		if err := d.absence(); !errors.Is(err, test.want) || fault.KindOf(err) != test.kind {
			t.Errorf("%s: got %v", test.name, err)
		}
	}
}

// Where there is no store, a node is what its certificate says, or less when managers said so.
func TestNodeRecords_OnAWorkerKnowTheRevoked(t *testing.T) {
	for _, tt := range []struct {
		name  string
		role  api.Role
		known bool
		want  authz.Record
		found bool
	}{
		{"not revoked", 0, false, authz.Record{Role: api.Role_ROLE_MANAGER}, true},
		{"removed", api.Role_ROLE_UNSPECIFIED, true, authz.Record{Revoked: true}, true},
		{"demoted", api.Role_ROLE_WORKER, true, authz.Record{Role: api.Role_ROLE_WORKER}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			revoked := func(string) (api.Role, bool) { return tt.role, tt.known }
			records := nodeRecords{newManagedServices(func() error { return nil }), revoked}
			if got, found := records.Node("n"); got != tt.want || found != tt.found {
				t.Errorf("got %v, %v", got, found)
			}
		})
	}
}
