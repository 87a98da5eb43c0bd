package authztest

import (
	"context"
	"crypto/x509"
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

// Doors are the servers of a daemon; one that is nil is not swept.
type Doors struct {
	// Nodes is for other nodes, People for users, both over TCP; Socket is the daemon's unix socket.
	Nodes, People, Socket Factory
}

// Sweep calls every registered method of the servers with every identity and compares what happens with the rule declared beside the
// method. It returns what happened.
func Sweep(t *testing.T, doors Doors) *Table {
	t.Helper()
	table := &Table{}
	s := newSwarm(t)
	a := authz.New(authz.Config{ClusterID: func() string { return s.cluster.ID }, Nodes: &s.nodes, Users: &s.users})
	users := s.userIdentities(t)
	nodes := s.networkIdentities(t) // some forward for users
	if doors.Nodes != nil {
		target := s.serve(t, doors.Nodes, a, s.server.ServerCredentials(), "tcp", "127.0.0.1:0")
		target.sweepAll(t, "nodes", slices.Concat(nodes, refusedAtTheDoor(users)), table.door("For nodes: TCP port 2377", target.names()))
	}
	if doors.People != nil {
		tls := ca.PeopleCredentials(ca.PeopleTLS(func() *ca.Identity { return s.server }))
		target := s.serve(t, doors.People, a, authz.NewPeople().Credentials(tls, false), "tcp", "127.0.0.1:0")
		target.sweepAll(t, "people", slices.Concat(users, refusedAtTheDoor(nodes)), table.door("For users: TCP port 2376", target.names()))
		s.sweepExternal(t, doors.People, a)
	}
	if doors.Socket != nil {
		s.sweepSocket(t, doors.Socket, a, table)
	}
	return table
}

// refusedAtTheDoor are the same identities where none of them gets a connection.
func refusedAtTheDoor(ids []identity) []identity {
	out := slices.Clone(ids)
	for i := range out {
		out[i].worth, out[i].ahead = nobody, false
	}
	return out
}

// sweepExternal sweeps the door for people where another CA vouches for them.
func (s *swarm) sweepExternal(t *testing.T, f Factory, a *authz.Authorizer) {
	t.Helper()
	other, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	authorities := x509.NewCertPool()
	authorities.AddCert(other.Certificate())
	tls := ca.PeopleCredentials(ca.ExternalPeopleTLS(pair(s.server.Current()), authorities))
	target := s.serve(t, f, a, authz.NewPeople().Credentials(tls, true), "tcp", "127.0.0.1:0")
	for _, id := range s.externalIdentities(t, other) {
		t.Run("external/"+id.name, func(t *testing.T) { target.sweep(t, id) })
	}
}

// sweepSocket sweeps the unix socket.
func (s *swarm) sweepSocket(t *testing.T, f Factory, a *authz.Authorizer, table *Table) {
	t.Helper()
	var door *doorTable
	for _, id := range socketIdentities() {
		target := s.serve(t, f, a, socketCredentials(id), "unix", filepath.Join(t.TempDir(), "skep.sock"))
		if door == nil {
			door = table.door("On the machine: the unix socket", target.names())
		}
		target.sweepAll(t, "socket", []identity{id}, door)
	}
}

// socketIdentities are those that come over the unix socket. The name of the second says to socketCredentials who it is.
func socketIdentities() []identity {
	return []identity{
		{name: "root or group skep", column: true, creds: insecure.NewCredentials(), worth: admin},
		{name: notAdmin, column: true, creds: insecure.NewCredentials(), worth: anyone},
	}
}

const notAdmin = "others"

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

// names are those of the methods, without the package.
func (g target) names() (names []string) {
	for _, m := range g.methods {
		names = append(names, shortName(m))
	}
	return names
}

func shortName(m protoreflect.MethodDescriptor) string {
	return string(m.Parent().Name()) + "." + string(m.Name())
}

// sweepAll sweeps with many identities, and notes those that are columns of the table.
func (g target) sweepAll(t *testing.T, door string, ids []identity, table *doorTable) {
	t.Helper()
	for _, id := range ids {
		t.Run(door+"/"+id.name, func(t *testing.T) {
			if outcomes := g.sweep(t, id); id.column {
				table.note(id.name, outcomes)
			}
		})
	}
}

// sweep calls all methods as one identity, and returns what happened by method.
func (g target) sweep(t *testing.T, id identity) map[string]string {
	t.Helper()
	conn, err := grpc.NewClient(g.address, grpc.WithTransportCredentials(id.creds), grpc.WithAuthority(ca.OUManager))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close() //nolint:errcheck // nothing was left to send
	outcomes := map[string]string{}
	for _, m := range g.methods {
		err := call(t, conn, m, id)
		got := outcome(err)
		if want := id.expected(authz.RuleOf(m)); got != want {
			t.Errorf("%s: %s, want %s (%v)", m.FullName(), got, want, err)
		}
		outcomes[shortName(m)] = got
	}
	return outcomes
}

// expected is a second reading of the rules, written for this test.
func (id identity) expected(rule *api.Access) string {
	callers := rule.GetCallers()
	may := func(c api.Caller) bool {
		return c != known && (slices.Contains(callers, anyone) || slices.Contains(callers, c))
	}
	switch {
	case id.worth == nobody:
		return noConnection
	case id.originWorth != nobody && rule.GetLeader() && may(id.worth) && !may(id.originWorth):
		return refused
	case may(id.worth), id.ahead && rule.GetMayBeAhead() && slices.Contains(callers, manager):
		return allowed
	default:
		return refused
	}
}

func call(t *testing.T, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, id identity) error {
	ctx, cancel := context.WithTimeout(t.Context(), callTimeout)
	defer cancel()
	if id.origin.Kind != api.Caller_CALLER_UNSPECIFIED {
		ctx = metadata.NewOutgoingContext(ctx, authz.Origin(authz.NewContext(ctx, id.origin)))
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
		return allowed
	case authz.Refused(err):
		return refused
	case status.Code(err) == codes.Unavailable:
		return noConnection
	default:
		return "something else"
	}
}
