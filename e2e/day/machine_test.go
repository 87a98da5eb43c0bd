package day

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/raftnet"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// aliveTime is how soon a node notices that a peer is gone, as in the daemon.
const aliveTime = 5 * time.Second

// machine is a node of the swarm: its identity, its disk and its containers outlive its daemon.
type machine struct {
	// constant after it joined
	world    *world
	name     string
	identity *ca.Identity
	dir      string // of the agent
	executor *executor
	local    seal.Key // of a manager's key file
	manages  bool

	// owned by the nemesis
	disk  *vfs.Mem // of a manager's store
	agent *agent   // nil while the daemon does not run
	// manager is nil on a worker, and while the daemon does not run.
	manager *managing
}

// managing is one run of a machine's manager.
type managing struct {
	store *store.Store
	stop  context.CancelFunc
	ended chan error // holds one, of Run
	shut  func()     // ends its servers
}

func (m *machine) id() string { return m.identity.NodeID() }

// address is where other nodes reach the manager of a machine, and socket where people do who are on it.
func (m *machine) address() string { return m.name + ":2377" }
func (m *machine) socket() string  { return m.name + ":socket" }

// up reports whether the daemon runs.
func (m *machine) up() bool { return m.agent != nil }

func (m *machine) describe() *api.NodeDescription {
	d := &api.NodeDescription{
		Hostname: m.name, Platform: &api.Platform{Os: "linux", Architecture: "amd64"}, EngineVersion: "day",
		Resources: &api.Resources{NanoCpus: nodeCPUs, MemoryBytes: nodeMemory},
	}
	d.Resources.Generic = []*api.GenericResource{{Kind: deviceKind, Ids: []string{"gpu0", "gpu1", "gpu2"}}}
	d.Images = m.world.images
	return m.world.bug.describe(d)
}

// dial makes a connection with this machine's certificate to a node.
func (m *machine) dial(name, address string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	options = append(options, grpc.WithTransportCredentials(m.identity.ClientCredentials(name)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: aliveTime, Timeout: aliveTime, PermitWithoutStream: true}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return m.world.network.dial(ctx, m.name, address)
		}))
	return grpc.NewClient("passthrough:///"+address, options...)
}

func (m *machine) dialManager(address string) (*grpc.ClientConn, error) {
	return m.dial(ca.OUManager, address)
}

// start runs the daemon.
func (m *machine) start() error {
	if m.manages {
		if err := m.startManager(); err != nil {
			return fmt.Errorf("manager of %s: %w", m.name, err)
		}
	}
	a, err := startAgent(m)
	if err != nil {
		return fmt.Errorf("agent of %s: %w", m.name, err)
	}
	m.agent = a
	return nil
}

// stop ends the daemon in good order; containers run on.
func (m *machine) stop() error {
	var errs []error
	if m.agent != nil {
		errs = append(errs, m.agent.close())
		m.agent = nil
	}
	if m.manager != nil {
		m.manager.stop()
		errs = append(errs, <-m.manager.ended)
		m.manager.shut()
		m.manager = nil
	}
	return errors.Join(errs...)
}

// kill ends the daemon as SIGKILL does: nobody hears of it, and containers run on. With a loss of power they end, and the disk loses
// what it was not told to keep.
func (m *machine) kill(power *rand.Rand) error {
	m.world.network.silence(m.name)
	if power != nil {
		m.executor.powerOff()
		if m.manages {
			left, err := m.disk.Crash(power)
			if err != nil {
				return err
			}
			m.disk = left
		}
	}
	return m.stop()
}

func (m *machine) storeDisk() store.Disk {
	return store.Disk{FS: m.disk, Dir: "/raft", KEK: m.local, Source: seal.SourceKeyFile}
}

func (m *machine) newRaft() *raftnet.Server {
	return raftnet.NewServer(raftnet.ServerConfig{
		NodeID: m.identity.NodeID(), ClusterID: m.identity.ClusterID(), Dial: m.dial,
		Caller: func(ctx context.Context) (string, string) {
			caller := authz.FromContext(ctx)
			return caller.NodeID, caller.Address
		},
	})
}

// startManager opens the store and runs the manager on it.
func (m *machine) startManager() error {
	log := m.world.logger(m.name)
	s, err := store.Open(store.Config{
		Disk: m.storeDisk(), Transport: raftnet.NewTransport(raftnet.TransportConfig{Dial: m.dial, Logger: log}), Logger: log,
	})
	if err != nil {
		return err
	}
	raft := m.newRaft()
	raft.Attach(s)
	served, err := manager.New(manager.Config{
		NodeID: m.id(), Identity: m.identity, Store: s, Raft: raft, Logger: log, BackupDir: m.dir,
		Dial: func(address, nodeID string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
			return m.dial(nodeID, address, options...)
		},
		LocalKey: func(context.Context) (seal.Key, seal.Source, error) { return m.local, seal.SourceKeyFile, nil },
	})
	if err != nil {
		return err
	}
	m.manager = &managing{store: s, ended: make(chan error, 1)}
	m.manager.shut = m.serve(served)
	ctx, cancel := context.WithCancel(context.Background())
	m.manager.stop = cancel
	ended := m.manager.ended
	go func() {
		err := served.Run(ctx)
		if err != nil {
			m.world.violated("the manager of %s ended: %v", m.name, err)
		}
		ended <- err
	}()
	return nil
}

// trust believes every certificate: for the time before there is a store.
type trust struct{}

func (trust) Node(string) (authz.Record, bool) {
	return authz.Record{Role: api.Role_ROLE_MANAGER}, true
}
func (trust) CatchUp(context.Context) error { return nil }

// serve listens for nodes and people; with nil only for who asks whether this machine may become a manager.
func (m *machine) serve(served *manager.Manager) (shut func()) {
	var nodes authz.Nodes = trust{}
	if served != nil {
		nodes = served.Nodes()
	}
	options := append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
			response, err := handler(ctx, request)
			return response, fault.Status(err)
		}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: aliveTime, Timeout: aliveTime}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: aliveTime / 2, PermitWithoutStream: true}),
	}, authz.New(authz.Config{ClusterID: m.identity.ClusterID, Nodes: nodes}).ServerOptions()...)
	if served != nil {
		options = append(options, grpc.ChainUnaryInterceptor(served.Interceptor(), m.world.bug.unary), grpc.ChainStreamInterceptor(m.world.bug.stream))
	}
	forNodes := grpc.NewServer(append(options, grpc.Creds(m.identity.ServerCredentials()))...)
	forPeople := grpc.NewServer(append(options, grpc.Creds(atSocket{insecure.NewCredentials()}))...)
	if served != nil {
		served.Register(forNodes)
		served.Register(forPeople)
	} else {
		api.RegisterRaftServer(forNodes, m.newRaft())
	}
	var serving sync.WaitGroup
	for address, server := range map[string]*grpc.Server{m.address(): forNodes, m.socket(): forPeople} {
		listener := m.world.network.listen(m.name, address)
		serving.Go(func() { _ = server.Serve(listener) }) // ends with Stop
	}
	return func() {
		m.world.network.silence(m.name)
		forNodes.Stop()
		forPeople.Stop()
		serving.Wait()
	}
}

// atSocket says of everybody who connects what the kernel says of root at the daemon's unix socket.
type atSocket struct {
	credentials.TransportCredentials
}

// ServerHandshake implements credentials.TransportCredentials.
func (atSocket) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, authz.SocketPeer{
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, Admin: true,
	}, nil
}

// Clone implements credentials.TransportCredentials.
func (a atSocket) Clone() credentials.TransportCredentials {
	return atSocket{a.TransportCredentials.Clone()}
}

// logger of a machine: what its daemon says is shown when the day fails.
func (w *world) logger(machine string) *slog.Logger {
	return slog.New(slog.NewTextHandler(w.said, &slog.HandlerOptions{Level: slog.LevelWarn})).With("machine", machine)
}
