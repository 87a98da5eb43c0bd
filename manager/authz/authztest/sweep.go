package authztest

import (
	"context"
	"net"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/manager/authz"
)

// reached is the answer of a call that got through.
const reached = codes.DataLoss

// callTimeout bounds one call: a sweep waits for nothing but TLS.
const callTimeout = 20 * time.Second

// Factory makes a server as the daemon makes it: with a's ServerOptions, then opts, and everything registered that it serves.
type Factory func(a *authz.Authorizer, opts ...grpc.ServerOption) *grpc.Server

// Sweep calls every registered method of the servers with every identity and compares what happens with the rule declared beside the
// method. Network serves TCP, socket the daemon's unix socket; either may be nil.
func Sweep(t *testing.T, network, socket Factory) {
	t.Helper()
	s := newSwarm(t)
	a := authz.New(authz.Config{ClusterID: func() string { return s.cluster.ID }, Nodes: &s.nodes})
	if network != nil {
		target := s.serve(t, network, a, s.server.ServerCredentials(), "tcp", "127.0.0.1:0")
		for _, id := range s.networkIdentities(t) {
			t.Run("network/"+id.name, func(t *testing.T) { target.sweep(t, id) })
		}
	}
	if socket != nil {
		for _, id := range socketIdentities() {
			target := s.serve(t, socket, a, socketCredentials(id), "unix", filepath.Join(t.TempDir(), "skep.sock"))
			t.Run("socket/"+id.name, func(t *testing.T) { target.sweep(t, id) })
		}
	}
}

// socketIdentities are those that come over the unix socket. The name of the second says to socketCredentials who it is.
func socketIdentities() []identity {
	return []identity{
		{name: "admin", creds: insecure.NewCredentials(), worth: admin},
		{name: notAdmin, creds: insecure.NewCredentials(), worth: anyone},
	}
}

const notAdmin = "not root and not in the group"

// socketCredentials are the real ones for an admin; a test that is not root can't be one, nor can root be nobody.
func socketCredentials(id identity) credentials.TransportCredentials {
	return asPeer{authz.SocketCredentials(authz.NoGroup), id.name != notAdmin}
}

// asPeer makes every peer of a unix socket an admin, or none.
type asPeer struct {
	credentials.TransportCredentials
	admin bool
}

// ServerHandshake implements credentials.TransportCredentials.
func (p asPeer) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := p.TransportCredentials.ServerHandshake(c)
	if peer, ok := info.(authz.SocketPeer); ok {
		peer.Admin = p.admin
		info = peer
	}
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (p asPeer) Clone() credentials.TransportCredentials { return p }

// target is a server under test.
type target struct {
	address string
	methods []protoreflect.MethodDescriptor
}

func (s *swarm) serve(t *testing.T, f Factory, a *authz.Authorizer, creds credentials.TransportCredentials, network, address string) target {
	t.Helper()
	server := f(a, grpc.Creds(creds), grpc.ChainUnaryInterceptor(inertUnary), grpc.ChainStreamInterceptor(inertStream))
	if err := authz.Check(server); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	if network == "unix" {
		return target{"unix:" + address, methods(t, server)}
	}
	return target{"passthrough:///" + l.Addr().String(), methods(t, server)}
}

func inertUnary(context.Context, any, *grpc.UnaryServerInfo, grpc.UnaryHandler) (any, error) {
	return nil, status.Error(reached, "reached")
}

func inertStream(any, grpc.ServerStream, *grpc.StreamServerInfo, grpc.StreamHandler) error {
	return status.Error(reached, "reached")
}

// methods returns what is registered, in order.
func methods(t *testing.T, server *grpc.Server) (all []protoreflect.MethodDescriptor) {
	t.Helper()
	for service := range server.GetServiceInfo() {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			t.Fatalf("service %s: %v", service, err)
		}
		list := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range list.Len() {
			all = append(all, list.Get(i))
		}
	}
	if len(all) == 0 {
		t.Fatal("nothing is registered")
	}
	slices.SortFunc(all, func(a, b protoreflect.MethodDescriptor) int {
		if a.FullName() < b.FullName() {
			return -1
		}
		return 1
	})
	return all
}

// sweep calls all methods as one identity.
func (g target) sweep(t *testing.T, id identity) {
	t.Helper()
	conn, err := grpc.NewClient(g.address, grpc.WithTransportCredentials(id.creds), grpc.WithAuthority(ca.OUManager))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing was left to send
	for _, m := range g.methods {
		err := call(t, conn, m, id)
		if got, want := outcome(err), id.expected(authz.RuleOf(m)); got != want {
			t.Errorf("%s: %s, want %s (%v)", m.FullName(), got, want, err)
		}
	}
}

// expected is a second reading of the rules, written for this test.
func (id identity) expected(rule *api.Access) string {
	callers := rule.GetCallers()
	switch {
	case id.worth == nobody:
		return "no connection"
	case slices.Contains(callers, anyone), slices.Contains(callers, id.worth):
		return "allowed"
	case id.ahead && rule.GetMayBeAhead() && slices.Contains(callers, manager):
		return "allowed"
	default:
		return "refused"
	}
}

func call(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, id identity) error {
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	if id.origin != api.Caller_CALLER_UNSPECIFIED {
		ctx = metadata.NewOutgoingContext(ctx, authz.Origin(authz.NewContext(ctx, authz.Caller{Kind: id.origin})))
	}
	name := "/" + string(m.Parent().FullName()) + "/" + string(m.Name())
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true} // on the wire, one call is a stream of one
	stream, err := conn.NewStream(ctx, desc, name)
	if err != nil {
		return err
	}
	// An error of sending is told by receiving.
	_ = stream.SendMsg(&emptypb.Empty{})
	_ = stream.CloseSend()
	return stream.RecvMsg(&emptypb.Empty{})
}

func outcome(err error) string {
	switch {
	case status.Code(err) == reached:
		return "allowed"
	case authz.Refused(err):
		return "refused"
	case status.Code(err) == codes.Unavailable:
		return "no connection"
	default:
		return "something else"
	}
}
