package authz

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

func TestCheck_FindsMethodsWithoutARule(t *testing.T) {
	s := grpc.NewServer()
	api.RegisterCAServer(s, api.UnimplementedCAServer{})
	if err := Check(s); err != nil {
		t.Errorf("declared methods: %v", err)
	}
	grpc_health_v1.RegisterHealthServer(s, grpc_health_v1.UnimplementedHealthServer{})
	if err := Check(s); !errors.Is(err, ErrUndeclared) {
		t.Errorf("undeclared methods: %v", err)
	}
}

// swarm is one with a node, as an Authorizer sees it.
type swarm struct {
	creds ca.Credentials
	nodes fakeNodes
	auth  *Authorizer
	seen  []Refusal
}

func newSwarm(t *testing.T, role api.Role) *swarm {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	name := ca.Name{ClusterID: catest.NewID(), NodeID: catest.NewID(), Role: role}
	s := &swarm{creds: catest.Credentials(t, root, name, 0)}
	s.auth = New(Config{
		ClusterID: func() string { return name.ClusterID },
		Nodes:     &s.nodes,
		OnRefusal: func(_ context.Context, r Refusal) { s.seen = append(s.seen, r) },
	})
	return s
}

// call asks about a call of the node, and returns whom the handler sees.
func (s *swarm) call(ctx context.Context, method string) (Caller, error) {
	leaf := s.creds.Chain()[0]
	state := tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}
	return s.callFrom(ctx, credentials.TLSInfo{State: state}, method)
}

func (s *swarm) callFrom(ctx context.Context, info credentials.AuthInfo, method string) (seen Caller, err error) {
	ctx = peer.NewContext(ctx, &peer.Peer{Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 4711}, AuthInfo: info})
	_, err = s.auth.unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: method}, func(ctx context.Context, _ any) (any, error) {
		seen = FromContext(ctx)
		return nil, nil
	})
	return seen, err
}

type fakeNodes struct {
	record Record
	known  bool
	later  *Record // what CatchUp brings, or nil
	err    error
	asked  int
}

func (n *fakeNodes) Node(string) (Record, bool) { return n.record, n.known }

func (n *fakeNodes) CatchUp(context.Context) error {
	n.asked++
	if n.later != nil {
		n.record, n.known = *n.later, true
	}
	return n.err
}

func TestAuthorize_ANodeThatJustJoinedIsKnownAfterCatchingUp(t *testing.T) {
	s := newSwarm(t, api.Role_ROLE_WORKER)
	s.nodes.later = &Record{Role: api.Role_ROLE_WORKER, ChangedAt: time.Now()}
	got, err := s.call(t.Context(), api.Dispatcher_Heartbeat_FullMethodName)
	if err != nil || s.nodes.asked != 1 {
		t.Fatalf("caught up %d times, %v", s.nodes.asked, err)
	}
	n := s.creds.Name()
	want := Caller{Kind: api.Caller_CALLER_WORKER, NodeID: n.NodeID, ClusterID: n.ClusterID, Address: "192.0.2.7:4711"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := s.call(t.Context(), api.Dispatcher_Heartbeat_FullMethodName); err != nil || s.nodes.asked != 1 {
		t.Errorf("caught up %d times, %v", s.nodes.asked, err)
	}
}

func TestAuthorize_ANodeThatJustJoinedMayCatchUpAnother(t *testing.T) {
	s := newSwarm(t, api.Role_ROLE_MANAGER)
	if _, err := s.call(t.Context(), api.Raft_Send_FullMethodName); err != nil || s.nodes.asked != 0 {
		t.Errorf("caught up %d times, %v", s.nodes.asked, err)
	}
	if _, err := s.call(t.Context(), api.Raft_Join_FullMethodName); !Refused(err) || s.nodes.asked != 1 {
		t.Errorf("caught up %d times, %v", s.nodes.asked, err)
	}
}

func TestAuthorize_NobodyToAskIsNoRefusal(t *testing.T) {
	s := newSwarm(t, api.Role_ROLE_WORKER)
	s.nodes.err = errors.New("no leader")
	_, err := s.call(t.Context(), api.Dispatcher_Heartbeat_FullMethodName)
	if status.Code(err) != codes.Unavailable || Refused(err) || len(s.seen) != 0 {
		t.Errorf("%v, %d refusals told", err, len(s.seen))
	}
}

func TestAuthorize_RefusalsAreUniformAndTold(t *testing.T) {
	s := newSwarm(t, api.Role_ROLE_WORKER)
	s.nodes.known, s.nodes.record = true, Record{Role: api.Role_ROLE_WORKER, ChangedAt: time.Now()}
	var texts []string
	methods := []string{api.Control_GetSecret_FullMethodName, api.Raft_Send_FullMethodName, "/skep.v1.Control/NoSuchMethod", "/x/y"}
	for _, m := range methods {
		_, err := s.call(t.Context(), m)
		if status.Code(err) != codes.PermissionDenied || !Refused(err) {
			t.Errorf("%s: %v", m, err)
		}
		texts = append(texts, err.Error())
	}
	s.nodes.known = false // removed
	_, err := s.call(t.Context(), api.Dispatcher_Heartbeat_FullMethodName)
	texts = append(texts, err.Error())
	for _, text := range texts {
		if text != texts[0] {
			t.Errorf("refusals differ: %q, %q", text, texts[0])
		}
	}
	if len(s.seen) != len(texts) || s.seen[0].Method != methods[0] || s.seen[0].Caller.NodeID != s.creds.Name().NodeID {
		t.Errorf("told %+v", s.seen)
	}
	if _, err := s.callFrom(t.Context(), nil, methods[0]); status.Code(err) != codes.Unauthenticated || !Refused(err) {
		t.Errorf("stranger: %v", err)
	}
	if Refused(status.Error(codes.PermissionDenied, refusedText)) {
		t.Error("a handler's refusal is taken for ours")
	}
}

func TestAuthorize_BelievesNoUnverifiedOrForeignCertificate(t *testing.T) {
	s := newSwarm(t, api.Role_ROLE_MANAGER)
	s.nodes.known, s.nodes.record = true, Record{Role: api.Role_ROLE_MANAGER, ChangedAt: time.Now()}
	leaf := s.creds.Chain()[0]
	verified := tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}
	unverified := verified
	unverified.VerifiedChains = nil
	method := api.Raft_Send_FullMethodName
	if _, err := s.callFrom(t.Context(), credentials.TLSInfo{State: verified}, method); err != nil {
		t.Fatal(err)
	}
	if _, err := s.callFrom(t.Context(), credentials.TLSInfo{State: unverified}, method); !Refused(err) {
		t.Errorf("unverified: %v", err)
	}
	s.auth.cfg.ClusterID = func() string { return "" }
	if _, err := s.callFrom(t.Context(), credentials.TLSInfo{State: verified}, method); !Refused(err) {
		t.Errorf("outside of the swarm: %v", err)
	}
}

func TestAuthorize_BelievesNoCertificateThatExpiredOnTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t, api.Role_ROLE_WORKER)
		s.nodes.known, s.nodes.record = true, Record{Role: api.Role_ROLE_WORKER, ChangedAt: time.Now()}
		if _, err := s.call(t.Context(), api.Dispatcher_Heartbeat_FullMethodName); err != nil {
			t.Fatal(err)
		}
		<-time.After(ca.DefaultLife)
		if _, err := s.call(t.Context(), api.Dispatcher_Heartbeat_FullMethodName); !Refused(err) {
			t.Error(err)
		}
	})
}

func TestAuthorize_WithoutAStoreTheCertificateDecides(t *testing.T) {
	s := newSwarm(t, api.Role_ROLE_WORKER)
	s.auth.cfg.Nodes = nil
	if _, err := s.call(t.Context(), api.Agent_GetBlob_FullMethodName); err != nil {
		t.Error(err)
	}
	if _, err := s.call(t.Context(), api.Agent_ReadTaskLogs_FullMethodName); !Refused(err) {
		t.Errorf("for managers: %v", err)
	}
}

func TestAuthorize_OnlyManagersForward(t *testing.T) {
	origin := Caller{Kind: api.Caller_CALLER_ADMIN, Address: "@"}
	ctx := metadata.NewIncomingContext(t.Context(), Origin(NewContext(t.Context(), origin)))
	m := newSwarm(t, api.Role_ROLE_MANAGER)
	m.nodes.known, m.nodes.record = true, Record{Role: api.Role_ROLE_MANAGER, ChangedAt: time.Now()}
	got, err := m.call(ctx, api.Control_CreateSecret_FullMethodName)
	want := Caller{Kind: api.Caller_CALLER_ADMIN, Address: "@", Via: m.creds.Name().NodeID}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("forwarded by a manager: %v\n%s", err, diff)
	}
	if got, err := m.call(ctx, api.Control_WatchService_FullMethodName); err != nil || got.Kind != api.Caller_CALLER_MANAGER {
		t.Errorf("a method that nobody forwards: %+v, %v", got, err)
	}
	if _, err := m.call(ctx, api.Daemon_LeaveSwarm_FullMethodName); !Refused(err) {
		t.Errorf("a manager became an admin: %v", err)
	}
	w := newSwarm(t, api.Role_ROLE_WORKER)
	w.nodes.known, w.nodes.record = true, Record{Role: api.Role_ROLE_WORKER, ChangedAt: time.Now()}
	if _, err := w.call(ctx, api.Control_CreateSecret_FullMethodName); !Refused(err) {
		t.Errorf("forwarded by a worker: %v", err)
	}
	if got, err := w.call(ctx, api.CA_RenewCertificate_FullMethodName); err != nil || got.NodeID != w.creds.Name().NodeID || got.Via != "" {
		t.Errorf("a worker's claim was believed: %+v, %v", got, err)
	}
}

func TestFromContext_OfNobodyMayDoNothing(t *testing.T) {
	if c := FromContext(t.Context()); c.Kind != api.Caller_CALLER_UNSPECIFIED {
		t.Errorf("%+v", c)
	}
}

// stream is a server's stream of which only the context counts.
type stream struct {
	grpc.ServerStream
	context func() context.Context
}

func (s stream) Context() context.Context { return s.context() }

func TestStream_TheHandlerSeesTheCaller(t *testing.T) {
	s := newSwarm(t, api.Role_ROLE_WORKER)
	ctx := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: SocketPeer{Admin: true}})
	var seen Caller
	err := s.auth.stream(nil, stream{context: func() context.Context { return ctx }},
		&grpc.StreamServerInfo{FullMethod: api.Daemon_LoadImage_FullMethodName},
		func(_ any, in grpc.ServerStream) error {
			seen = FromContext(in.Context())
			return nil
		})
	if err != nil || seen.Kind != api.Caller_CALLER_ADMIN {
		t.Errorf("%+v, %v", seen, err)
	}
}

func TestNodes_OfAStore(t *testing.T) {
	s := storetest.New(t)
	nodes := NewNodes(s)
	id := catest.NewID()
	if _, known := nodes.Node(id); known {
		t.Error("knows a node that isn't there")
	}
	storetest.Create(t, s, &api.Node{Id: id, Role: api.Role_ROLE_MANAGER})
	r, known := nodes.Node(id)
	if !known || r.Role != api.Role_ROLE_MANAGER || time.Since(r.ChangedAt) > time.Minute {
		t.Errorf("%v %+v", known, r)
	}
	if err := nodes.CatchUp(t.Context()); err != nil {
		t.Error(err)
	}
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		n, err := store.Get[*api.Node](tx, id)
		if err != nil {
			return err
		}
		return tx.Delete(object.KindOf(n), id)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, known := nodes.Node(id); known {
		t.Error("knows a removed node")
	}
}
