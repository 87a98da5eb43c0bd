package manager_test

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

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/caserver"
	"github.com/skep-io/skep/manager/control"
	"github.com/skep-io/skep/manager/raftnet"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
	"github.com/skep-io/skep/store/vfs"
)

// swarm is some managers in one process, with real stores, certificates and connections; only the wires and disks are memory.
type swarm struct {
	t        *testing.T
	founding caserver.Founding
	root     *ca.Root
	members  []*member // that run or ran

	mu        sync.Mutex
	listeners map[string]*grpctest.Listener // by address; guarded by mu
}

// member is one manager of a swarm.
type member struct {
	swarm    *swarm
	address  string
	identity *ca.Identity
	disk     store.Disk
	local    seal.Key // of its key file
	store    *store.Store
	cancel   context.CancelFunc
	stopped  chan error // holds one, of Run
	shut     func()

	wires sync.Mutex
	mute  bool               // guarded by wires: it reaches nobody
	conns []*grpc.ClientConn // guarded by wires: that it dialled
}

// silence cuts a member off: nobody reaches it, and it reaches nobody.
func (m *member) silence() {
	m.wires.Lock()
	m.mute = true
	for _, conn := range m.conns {
		_ = conn.Close()
	}
	m.conns = nil
	m.wires.Unlock()
	m.shut()
}

// revive runs a member again that was killed.
func (m *member) revive() {
	m.wires.Lock()
	m.mute = false
	m.wires.Unlock()
	m.run()
}

// found makes a swarm of one manager.
func found(t *testing.T) (*swarm, *member) {
	t.Helper()
	founding, err := caserver.Found(time.Now(), caserver.FoundConfig{
		Spec: control.DefaultClusterSpec(), Hostname: "m1", Availability: api.Availability_AVAILABILITY_ACTIVE,
	})
	if err != nil {
		t.Fatal(err)
	}
	root, err := ca.ParseRoot(founding.Cluster.GetRootCa().GetCertificate(), founding.Cluster.GetRootCa().GetKey())
	if err != nil {
		t.Fatal(err)
	}
	s := &swarm{t: t, founding: founding, root: root, listeners: map[string]*grpctest.Listener{}}
	m := s.newMember("m1:2377", founding.Credentials)
	self := &api.Member{RaftId: store.NewRaftID(), NodeId: founding.Node.GetId(), Address: m.address}
	if err := store.Bootstrap(m.disk, founding.Cluster.GetId(), self); err != nil {
		t.Fatal(err)
	}
	m.run()
	if err := manager.Bootstrap(t.Context(), m.store, founding); err != nil {
		t.Fatal(err)
	}
	return s, m
}

func (s *swarm) newMember(address string, credentials ca.Credentials) *member {
	disk := vfs.NewMem()
	s.t.Cleanup(disk.Close)
	local := seal.NewKey()
	return &member{
		swarm: s, address: address, identity: ca.NewIdentity(credentials), local: local,
		disk: store.Disk{FS: disk, Dir: "/raft", KEK: local, Source: seal.SourceKeyFile},
	}
}

// join adds a manager through one that is there, and returns when it has a vote.
func (s *swarm) join(address string, through *member) *member {
	s.t.Helper()
	id := object.NewID()
	name := ca.Name{ClusterID: s.founding.Cluster.GetId(), NodeID: id, Role: api.Role_ROLE_MANAGER}
	leader := s.leader(s.members...)
	storetest.Create(s.t, leader.store, &api.Node{
		Id: id, Role: name.Role, Spec: &api.NodeSpec{DesiredRole: name.Role, Availability: api.Availability_AVAILABILITY_ACTIVE},
	})
	m := s.newMember(address, catest.Credentials(s.t, s.root, name, 0))
	m.serve(nil, nil) // answers the probe
	conn := m.dial(ca.OUManager, through.address)
	joined, err := api.NewRaftClient(conn).Join(s.t.Context(), &api.JoinRequest{Address: address, NodeId: id, Protocol: store.Protocol})
	_ = conn.Close()
	if err != nil {
		s.t.Fatal(err)
	}
	m.shut()
	if err := store.Prepare(m.disk, name.ClusterID, joined); err != nil {
		s.t.Fatal(err)
	}
	m.run()
	waitFor(s.t, "a vote for "+address, func() bool {
		for _, member := range leader.store.Status().Members {
			if member.Member.GetNodeId() == id {
				return !member.Member.GetLearner() && member.Reachable
			}
		}
		return false
	})
	return m
}

// leader returns the manager that leads, among those given.
func (s *swarm) leader(among ...*member) *member {
	s.t.Helper()
	var leader *member
	waitFor(s.t, "a leader", func() bool {
		for _, m := range among {
			if _, _, self := m.store.Leader(); self {
				leader = m
				return true
			}
		}
		return false
	})
	return leader
}

// waitFor waits in virtual time.
func waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 3000 {
		if done() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited 30s for %s", what)
}

// dial makes a connection with this member's certificate to whoever listens at an address.
func (m *member) dial(name, address string, options ...grpc.DialOption) *grpc.ClientConn {
	conn, err := m.dialNode(name, address, options...)
	if err != nil {
		m.swarm.t.Error(err)
	}
	return conn
}

func (m *member) dialNode(name, address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	options = append(options, grpc.WithTransportCredentials(m.identity.ClientCredentials(name)),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			m.swarm.mu.Lock()
			listener := m.swarm.listeners[address]
			m.swarm.mu.Unlock()
			m.wires.Lock()
			mute := m.mute
			m.wires.Unlock()
			if mute {
				return nil, errors.New("the wire is cut")
			}
			if listener == nil {
				return nil, errors.New("nobody listens there")
			}
			return listener.DialContext(ctx)
		}))
	conn, err := grpc.NewClient("passthrough:///"+address, options...)
	if err == nil {
		m.wires.Lock()
		m.conns = append(m.conns, conn)
		m.wires.Unlock()
	}
	return conn, err
}

// run opens the store and runs the manager on it.
func (m *member) run() {
	t := m.swarm.t
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	var err error
	m.store, err = store.Open(store.Config{Disk: m.disk, Transport: raftnet.NewTransport(raftnet.TransportConfig{Dial: m.dialNode, Logger: log}), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	raft := m.newRaft()
	raft.Attach(m.store)
	manager, err := manager.New(manager.Config{
		NodeID: m.identity.NodeID(), Identity: m.identity, Store: m.store, Raft: raft, Logger: log, BackupDir: m.swarm.t.TempDir(),
		Dial: func(address, nodeID string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
			return m.dialNode(nodeID, address, options...)
		},
		LocalKey: func(context.Context) (seal.Key, seal.Source, error) { return m.local, seal.SourceKeyFile, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	m.swarm.members = append(m.swarm.members, m)
	m.serve(manager, manager.Nodes())
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel, m.stopped = cancel, make(chan error, 1)
	go func() { m.stopped <- manager.Run(ctx) }()
	t.Cleanup(func() { m.stop() })
}

func (m *member) newRaft() *raftnet.Server {
	return raftnet.NewServer(raftnet.ServerConfig{
		NodeID: m.identity.NodeID(), ClusterID: m.identity.ClusterID(), Dial: m.dialNode,
		Caller: func(ctx context.Context) (string, string) {
			caller := authz.FromContext(ctx)
			return caller.NodeID, caller.Address
		},
	})
}

// trust believes every certificate: for the time before there is a store.
type trust struct{}

func (trust) Node(string) (authz.Record, bool) {
	return authz.Record{Role: api.Role_ROLE_MANAGER}, true
}
func (trust) CatchUp(context.Context) error { return nil }

// serve listens at the member's address, as a manager or, with nil, only with what answers a probe.
func (m *member) serve(served *manager.Manager, nodes authz.Nodes) {
	if nodes == nil {
		nodes = trust{}
	}
	listener := grpctest.Listen()
	options := append([]grpc.ServerOption{
		grpc.Creds(m.identity.ServerCredentials()),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			response, err := handler(ctx, request)
			return response, fault.Status(err)
		}),
	}, authz.New(authz.Config{ClusterID: m.identity.ClusterID, Nodes: nodes}).ServerOptions()...)
	if served != nil {
		options = append(options, grpc.ChainUnaryInterceptor(served.Interceptor()))
	}
	server := grpc.NewServer(options...)
	if served != nil {
		served.Register(server)
	} else {
		api.RegisterRaftServer(server, m.newRaft())
	}
	stop := grpctest.Serve(m.swarm.t, server, listener)
	m.swarm.mu.Lock()
	m.swarm.listeners[m.address] = listener
	m.swarm.mu.Unlock()
	var once sync.Once
	m.shut = func() {
		once.Do(func() {
			m.swarm.mu.Lock()
			if m.swarm.listeners[m.address] == listener {
				delete(m.swarm.listeners, m.address)
			}
			m.swarm.mu.Unlock()
			stop()
		})
	}
}

// stop stops the manager in good order and returns why it ended.
func (m *member) stop() error {
	m.cancel()
	err := <-m.stopped
	m.stopped <- err
	m.shut()
	return err
}

// createSecret asks a manager, as the node of another one.
func (m *member) createSecret(name string, through *member) error {
	conn := m.dial(through.identity.NodeID(), through.address)
	defer conn.Close()
	_, err := api.NewControlClient(conn).CreateSecret(m.swarm.t.Context(), &api.CreateSecretRequest{
		Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: name}, Data: []byte("value")},
	})
	return fault.FromStatus(err)
}

// three makes a swarm of three managers, the first of which leads.
func three(t *testing.T) []*member {
	t.Helper()
	s, m1 := found(t)
	m2 := s.join("m2:2377", m1)
	m3 := s.join("m3:2377", m2) // through a follower: forwarded
	return []*member{m1, m2, m3}
}

func TestCluster_EveryManagerTakesWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		members := three(t)
		for i, m := range members {
			if err := members[0].createSecret(m.address[:2], m); err != nil {
				t.Errorf("through %s: %v", m.address, err)
			}
			if err := members[(i+1)%3].createSecret(m.address[:2], m); fault.KindOf(err) != fault.AlreadyExists {
				t.Errorf("a second time: %v", err)
			}
		}
	})
}

func TestCluster_ALeaderThatStopsHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		members := three(t)
		start := time.Now()
		if err := members[0].stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		members[1].swarm.leader(members[1:]...)
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("the next leader led after %s, as if there had been an election", took)
		}
		if err := members[2].createSecret("db", members[1]); err != nil {
			t.Error(err)
		}
	})
}

// A leader that hands over takes no writes for a moment: that is no defect, and nothing was done.
func TestCluster_WritesDuringAHandOverAreDoneOrMayBeRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		members := three(t)
		errs := make([]error, 60)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() { errs[i] = members[1].createSecret(fmt.Sprint("s", i), members[1+i%2]) })
		}
		if err := members[0].stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		wg.Wait()
		for i, err := range errs {
			if err != nil && fault.KindOf(err) != fault.Unavailable {
				t.Errorf("write %d: %v: %v", i, fault.KindOf(err), err)
			}
		}
	})
}

func TestCluster_WritesSurviveTheLossOfALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		members := three(t)
		members[0].shut() // it is deaf from now on, and the others don't hear it either
		members[0].swarm.mu.Lock()
		delete(members[0].swarm.listeners, members[0].address)
		members[0].swarm.mu.Unlock()
		start := time.Now()
		if err := members[0].stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if err := members[2].createSecret("db", members[1]); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("the write took %s", took)
		}
	})
}

func TestCluster_WithoutAQuorumWritesSaySo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		members := three(t)
		leader := members[0].swarm.leader(members...)
		for _, m := range members {
			if m != leader {
				m.shut()
				m.cancel()
			}
		}
		err := leader.createSecret("db", leader)
		if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "more than half of the managers are online") {
			t.Errorf("got %v: %v", fault.KindOf(err), err)
		}
	})
}

func TestCluster_ADemotedLeaderBecomesAWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		members := three(t)
		m1 := members[0]
		conn := members[1].dial(m1.identity.NodeID(), m1.address)
		defer conn.Close()
		people := api.NewControlClient(conn)
		got, err := people.GetNode(t.Context(), &api.GetNodeRequest{Node: m1.identity.NodeID()})
		if err != nil || !got.GetNode().GetManagerStatus().GetLeader() {
			t.Fatalf("the first manager: %v, %v", got, err)
		}
		spec := got.GetNode().GetSpec()
		spec.DesiredRole = api.Role_ROLE_WORKER
		_, err = people.UpdateNode(t.Context(), &api.UpdateNodeRequest{
			NodeId: m1.identity.NodeID(), Version: got.GetNode().GetMeta().GetVersion(), Spec: spec,
		})
		if err != nil {
			t.Fatal(err)
		}
		leader := m1.swarm.leader(members[1:]...)
		waitFor(t, "the demotion", func() bool {
			node := storetest.Get[*api.Node](t, leader.store, m1.identity.NodeID())
			return node.GetRole() == api.Role_ROLE_WORKER && len(leader.store.Status().Members) == 2
		})
		if err := <-m1.stopped; !errors.Is(err, store.ErrRemoved) {
			t.Errorf("the demoted manager ended with %v", err)
		} else {
			m1.stopped <- err
		}
		if err := members[1].createSecret("db", members[2]); err != nil {
			t.Error(err)
		}
	})
}

func TestCluster_AutolockSealsEveryManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		members := three(t)
		conn := members[1].dial(members[2].identity.NodeID(), members[2].address)
		defer conn.Close()
		people := api.NewControlClient(conn)
		got, err := people.GetCluster(t.Context(), &api.GetClusterRequest{})
		if err != nil {
			t.Fatal(err)
		}
		spec := got.GetCluster().GetSpec()
		spec.Autolock = true
		updated, err := people.UpdateCluster(t.Context(), &api.UpdateClusterRequest{Version: got.GetCluster().GetMeta().GetVersion(), Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		key, err := seal.ParseUnlockKey(updated.GetUnlockKey())
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range members {
			waitFor(t, "the seal of "+m.address, func() bool {
				_, source, err := store.Inspect(m.disk.FS, m.disk.Dir)
				return err == nil && source == seal.SourceUnlockKey
			})
			if err := m.stop(); err != nil {
				t.Errorf("stop: %v", err)
			}
			if _, err := store.Open(store.Config{Disk: m.disk}); !errors.Is(err, seal.ErrWrongKey) {
				t.Errorf("%s opens without the unlock key: %v", m.address, err)
			}
			m.disk.KEK = key
			m.run()
		}
		if err := members[0].createSecret("db", members[1]); err != nil {
			t.Error(err)
		}
	})
}
