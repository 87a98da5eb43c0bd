package raftnet_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/raftnet"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
	"github.com/skep-io/skep/store/vfs"
)

// network is gRPC over memory. Who calls, the metadata say; in reality certificates do.
type network struct {
	t    testing.TB
	rate int // of snapshots; 0 is the default
	tap  tap

	mu        sync.Mutex
	listeners map[string]*grpctest.Listener // by address
}

type node struct {
	n      *network
	id     string
	host   string // where it answers; at first its id
	disk   store.Disk
	server *raftnet.Server
	grpc   *grpc.Server
	store  *store.Store
	cancel context.CancelFunc
	ended  chan error
}

func newNetwork(t testing.TB) *network {
	return &network{t: t, listeners: map[string]*grpctest.Listener{}}
}

func (n *network) dialAs(self string) raftnet.DialFunc {
	return func(_, address string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
		identify := func(ctx context.Context) context.Context {
			return metadata.AppendToOutgoingContext(ctx, "node", self)
		}
		opts = append(opts,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				n.mu.Lock()
				listener := n.listeners[address]
				n.mu.Unlock()
				if listener == nil {
					return nil, errors.New("connection refused")
				}
				return listener.DialContext(ctx)
			}),
			grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, answer any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				return invoke(identify(ctx), method, request, answer, conn, opts...)
			}),
			grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, conn *grpc.ClientConn, method string, stream grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				return stream(identify(ctx), desc, conn, method, opts...)
			}))
		return grpc.NewClient("passthrough:///"+address, opts...)
	}
}

func (n *network) node(id string) *node {
	mem := vfs.NewMem()
	n.t.Cleanup(mem.Close)
	m := &node{n: n, id: id, host: id, disk: store.Disk{FS: mem, Dir: "/raft", KEK: seal.NewKey(), Source: seal.SourceKeyFile}}
	m.serve()
	return m
}

func (m *node) address() string { return m.host + ":2377" }

// serve makes the node answer at its address, without a store yet.
func (m *node) serve() {
	m.server = raftnet.NewServer(raftnet.ServerConfig{
		NodeID: m.id, ClusterID: "c1", Dial: m.n.dialAs(m.id),
		Caller: func(ctx context.Context) (string, string) {
			md, _ := metadata.FromIncomingContext(ctx)
			return strings.Join(md.Get("node"), ""), strings.Join(md.Get("node"), "") + ":40000"
		},
	})
	m.grpc = grpc.NewServer(grpc.StreamInterceptor(m.n.tap.intercept))
	api.RegisterRaftServer(m.grpc, m.server)
	listener := grpctest.Listen()
	m.n.mu.Lock()
	m.n.listeners[m.address()] = listener
	m.n.mu.Unlock()
	grpctest.Serve(m.n.t, m.grpc, listener)
}

// start opens the store and takes part.
func (m *node) start() {
	m.n.t.Helper()
	s, err := store.Open(store.Config{
		Disk: m.disk, SnapshotInterval: 50,
		Transport: raftnet.NewTransport(raftnet.TransportConfig{
			Dial: m.n.dialAs(m.id), Logger: slog.New(slog.DiscardHandler), SnapshotRate: m.n.rate,
		}),
	})
	if err != nil {
		m.n.t.Fatal(err)
	}
	var ctx context.Context
	ctx, m.cancel = context.WithCancel(context.Background())
	m.store, m.ended = s, make(chan error, 1)
	go func(ended chan error) { ended <- s.Run(ctx) }(m.ended)
	m.server.Attach(s)
	m.n.t.Cleanup(m.kill)
}

// kill ends the node without a farewell. It may be called twice.
func (m *node) kill() {
	m.n.mu.Lock()
	delete(m.n.listeners, m.address())
	m.n.mu.Unlock()
	m.grpc.Stop()
	m.cancel()
	err := <-m.ended
	m.ended <- err
	if err != nil && !errors.Is(err, store.ErrRemoved) {
		m.n.t.Errorf("%s: %v", m.id, err)
	}
}

func (n *network) first() *node {
	m := n.node("m1")
	if err := store.Bootstrap(m.disk, "c1", &api.Member{RaftId: store.NewRaftID(), NodeId: "m1", Address: m.address()}); err != nil {
		n.t.Fatal(err)
	}
	m.start()
	n.await(m.leads)
	return m
}

func (m *node) leads() bool { _, _, self := m.store.Leader(); return self }

func (m *node) votes() bool {
	for _, member := range m.store.Members() {
		if member.GetNodeId() == m.id {
			return !member.GetLearner()
		}
	}
	return false
}

// client returns a client of to that calls as from.
func (n *network) client(from string, to *node) api.RaftClient {
	conn, err := n.dialAs(from)("", to.address())
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { conn.Close() })
	return api.NewRaftClient(conn)
}

func (n *network) join(id string, leader *node) *node {
	n.t.Helper()
	m := n.node(id)
	joined, err := n.client(id, leader).Join(n.t.Context(), &api.JoinRequest{Address: ":2377", Protocol: store.Protocol})
	if err != nil {
		n.t.Fatalf("join: %v", err)
	}
	if err := store.Prepare(m.disk, "c1", joined); err != nil {
		n.t.Fatal(err)
	}
	m.start()
	n.await(m.votes)
	return m
}

func (n *network) await(condition func() bool) {
	n.t.Helper()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for range 1200 {
		if condition() {
			return
		}
		<-ticker.C
	}
	n.t.Fatal("waited for a minute in vain")
}

func (n *network) leaderOf(nodes ...*node) *node {
	n.t.Helper()
	var found *node
	n.await(func() bool {
		for _, m := range nodes {
			if m.leads() {
				found = m
			}
		}
		return found != nil
	})
	return found
}

func (n *network) write(leader *node, from, to int) {
	n.t.Helper()
	for i := from; i < to; i++ {
		storetest.Create(n.t, leader.store, &api.Task{Id: fmt.Sprintf("t%04d", i), ServiceId: "s"})
	}
}

// same compares the states of managers after a linearizable read on each (I1, I3).
func (n *network) same(want int, nodes ...*node) {
	n.t.Helper()
	var hashes []string
	for _, m := range nodes {
		if err := m.store.Barrier(n.t.Context()); err != nil {
			n.t.Fatalf("barrier on %s: %v", m.id, err)
		}
		if got := len(storetest.List[*api.Task](n.t, m.store)); got != want {
			n.t.Errorf("%s has %d of %d tasks", m.id, got, want)
		}
		_, hash, err := m.store.StateHash(n.t.Context())
		if err != nil {
			n.t.Fatal(err)
		}
		hashes = append(hashes, fmt.Sprintf("%x", hash))
		if hashes[0] != hashes[len(hashes)-1] {
			n.t.Errorf("states differ: %s", hashes)
		}
	}
}

// Three managers over gRPC survive the kill of each, and a restarted one catches up by log or snapshot.
func TestRaftnet_SurvivesKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		m1 := n.first()
		nodes := []*node{m1, n.join("m2", m1), n.join("m3", m1)}
		written := 0
		for round := range 6 {
			victim := nodes[round%3]
			victim.kill()
			var others []*node
			for _, m := range nodes {
				if m != victim {
					others = append(others, m)
				}
			}
			leader := n.leaderOf(others...)
			count := 10 + 70*(round%2)
			n.write(leader, written, written+count)
			written += count
			victim.serve()
			victim.start()
			n.same(written, nodes...)
		}
	})
}

func TestRaftnet_SendsLargeSnapshotsInChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		m1 := n.first()
		for i := range 8 {
			storetest.Create(t, m1.store, &api.Secret{Id: fmt.Sprint("s", i), Spec: &api.SecretSpec{
				Annotations: &api.Annotations{Name: fmt.Sprint(i)}, Data: make([]byte, 900<<10),
			}})
		}
		m2 := n.join("m2", m1)
		if got := len(storetest.List[*api.Secret](t, m2.store)); got != 8 {
			t.Errorf("%d of 8 secrets", got)
		}
		n.same(0, m1, m2)
	})
}

func TestJoin_Refuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		m1 := n.first()
		m2 := n.join("m2", m1)
		n.node("m4") // answers, but is another node than the caller says
		tests := []struct {
			name    string
			to      *node
			from    string
			request *api.JoinRequest
			kind    fault.Kind
			text    string
		}{
			{"a follower", m2, "m3", &api.JoinRequest{Address: "m3:2377"}, fault.NotLeader, "m1:2377"},
			{"another's id", m1, "m3", &api.JoinRequest{Address: "m3:2377", NodeId: "m2"}, fault.PermissionDenied, "itself"},
			{"nobody", m1, "", &api.JoinRequest{Address: "m3:2377"}, fault.PermissionDenied, "itself"},
			{"no address", m1, "m3", &api.JoinRequest{}, fault.Invalid, "host:port"},
			{"no answer", m1, "m3", &api.JoinRequest{Address: "m3:2377"}, fault.Precondition, "can't be reached at its advertised address m3:2377"},
			{"another node's address", m1, "m3", &api.JoinRequest{Address: "m4:2377"}, fault.Precondition, "another manager answers"},
		}
		for _, test := range tests {
			_, err := n.client(test.from, test.to).Join(t.Context(), test.request)
			err = fault.FromStatus(err)
			if fault.KindOf(err) != test.kind || !strings.Contains(err.Error(), test.text) {
				t.Errorf("%s: %v: %v", test.name, fault.KindOf(err), err)
			}
		}
		if got := len(m1.store.Members()); got != 2 {
			t.Errorf("%d members", got)
		}
	})
}

// announce tells a manager where m is.
func (n *network) announce(m, to *node, raftID uint64) error {
	conn, err := n.dialAs(m.id)("", to.address())
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	return fault.FromStatus(raftnet.Announce(n.t.Context(), conn, &api.Member{
		RaftId: raftID, NodeId: m.id, Address: m.address(), Protocol: store.Protocol,
	}))
}

// A manager that comes back at another address says so, and has its vote there.
func TestUpdateMember_AManagerMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		m1 := n.first()
		m2, m3 := n.join("m2", m1), n.join("m3", m1)
		id := m3.store.Status().RaftID
		m3.kill()
		m3.host = "elsewhere"
		if err := n.announce(m3, m1, id); fault.KindOf(err) != fault.Precondition || !strings.Contains(err.Error(), "elsewhere:2377") {
			t.Errorf("nobody answers there: %v", err)
		}
		m3.serve()
		m3.start()
		if err := n.announce(m2, m1, id); fault.KindOf(err) != fault.PermissionDenied {
			t.Errorf("another node's member: %v", err)
		}
		if err := n.announce(m3, m2, id); fault.KindOf(err) != fault.NotLeader {
			t.Errorf("to a follower: %v", err)
		}
		for range 2 { // once more changes nothing
			if err := n.announce(m3, m1, id); err != nil {
				t.Fatal(err)
			}
		}
		n.write(m1, 0, 10)
		n.same(10, m1, m2, m3)
		m2.kill()
		n.write(n.leaderOf(m1, m3), 10, 20)
		n.same(20, m1, m3)
		if got := len(m1.store.Members()); got != 3 {
			t.Errorf("%d members", got)
		}
	})
}

// A manager that was removed while it was away learns it from whomever it asks, also after their restart from a snapshot.
func TestUpdateMember_ARemovedManagerLearnsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		m1 := n.first()
		m2, m3 := n.join("m2", m1), n.join("m3", m1)
		id := m3.store.Status().RaftID
		m3.kill()
		if err := m1.store.RemoveMember(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		n.write(m1, 0, 200)
		for _, m := range []*node{m1, m2} {
			m.kill()
			m.serve()
			m.start()
		}
		m3.serve()
		leader := n.leaderOf(m1, m2)
		if err := n.announce(m3, leader, id); !errors.Is(err, store.ErrRemoved) {
			t.Errorf("got %v", err)
		}
		if err := n.announce(m3, leader, id+1); fault.KindOf(err) != fault.PermissionDenied {
			t.Errorf("a member that never was: %v", err)
		}
	})
}

func TestLeave_RemovesForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		m1 := n.first()
		m2, m3 := n.join("m2", m1), n.join("m3", m1)
		removed := m3.store.Status().RaftID
		if _, err := n.client("m2", m1).Leave(t.Context(), &api.LeaveRequest{NodeId: "m3"}); fault.KindOf(fault.FromStatus(err)) != fault.PermissionDenied {
			t.Errorf("leave for another: %v", err)
		}
		if _, err := n.client("m3", m1).Leave(t.Context(), &api.LeaveRequest{NodeId: "m3"}); err != nil {
			t.Fatal(err)
		}
		if err := <-m3.ended; !errors.Is(err, store.ErrRemoved) {
			t.Errorf("the removed manager ended with %v", err)
		}
		m3.ended <- nil
		n.write(m1, 0, 10)
		n.same(10, m1, m2)
		stream, err := n.client("m3", m2).Send(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		encoded, err := proto.Marshal(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: &removed, Term: proto.Uint64(99)})
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&api.SendRequest{Message: encoded}); err != nil {
			t.Fatal(err)
		}
		if _, err := stream.CloseAndRecv(); status.Code(err) != codes.PermissionDenied {
			t.Errorf("message of a removed member: %v", err)
		}
	})
}

func TestServer_RefusesWhatIsNotForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNetwork(t)
		m1 := n.first()
		m2 := n.join("m2", m1)
		leader := m1.store.Status().RaftID
		heartbeat, err := proto.Marshal(&raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), From: &leader, Term: proto.Uint64(99)})
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			name    string
			to      *node
			message []byte
			code    codes.Code
		}{
			{"another's message", m2, heartbeat, codes.PermissionDenied},
			{"garbage", m2, []byte("garbage"), codes.InvalidArgument},
			{"no store yet", n.node("m5"), heartbeat, codes.Unavailable},
		} {
			stream, err := n.client("m9", test.to).Send(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := stream.Send(&api.SendRequest{Message: test.message}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.CloseAndRecv(); status.Code(err) != test.code {
				t.Errorf("%s: %v", test.name, err)
			}
		}
		snapshot, err := n.client("m9", m2).SendSnapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := snapshot.Send(&api.SendSnapshotRequest{Message: heartbeat}); err != nil {
			t.Fatal(err)
		}
		if _, err := snapshot.CloseAndRecv(); status.Code(err) != codes.InvalidArgument {
			t.Errorf("a snapshot that is none: %v", err)
		}
	})
}
