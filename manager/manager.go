package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/manager/audit"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/caserver"
	"github.com/skep-io/skep/manager/control"
	"github.com/skep-io/skep/manager/dispatcher"
	"github.com/skep-io/skep/manager/events"
	"github.com/skep-io/skep/manager/execbroker"
	"github.com/skep-io/skep/manager/forward"
	"github.com/skep-io/skep/manager/keymanager"
	"github.com/skep-io/skep/manager/learnbroker"
	"github.com/skep-io/skep/manager/logbroker"
	"github.com/skep-io/skep/manager/reach"
	"github.com/skep-io/skep/manager/scheduler"
	"github.com/skep-io/skep/manager/statsbroker"
	"github.com/skep-io/skep/manager/volumebroker"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
)

// handOverTimeout bounds how long a manager that stops waits for another one to lead: an election takes about as long.
const handOverTimeout = 3 * time.Second

// Config is what a Manager needs; all fields but Reseal, Distrust, Identity, CompileSeccomp and Version are required.
type Config struct {
	// NodeID is this node's.
	NodeID string
	// Store is open and not running yet: Run runs it.
	Store *store.Store
	// Raft answers the other managers, for Store's transport.
	Raft api.RaftServer
	// Dial makes a connection to a node of the cluster without waiting for it. The peer must prove to be the node. It should
	// notice a peer that is gone within seconds (keepalive).
	Dial reach.Dial
	// LocalKey returns this node's own key, which seals Store while autolock is off, and where it comes from. It makes one if there
	// is none.
	LocalKey func(ctx context.Context) (seal.Key, seal.Source, error)
	// Reseal makes a key the one that opens Store, and whatever else the node seals by it. Nil is for Store alone.
	Reseal func(kek seal.Key, source seal.Source) error
	// Distrust is told which nodes are not to be believed, as of a version of the cluster object, now and whenever that changes. Nil
	// is for nobody.
	Distrust func(version store.Index, revocations []*api.Revocation)
	// Identity is who this node is for an external CA. Nil asks as nobody.
	Identity *ca.Identity
	// BackupDir is where this node puts scheduled backups unless the cluster's spec says otherwise.
	BackupDir string
	// CompileSeccomp returns an error for a seccomp profile, in Docker's JSON, that nodes can't use. Nil is for one that always can.
	CompileSeccomp func(profile []byte) error
	// Silent returns the nodes whose machines do not answer others, as far as known; nil is for nothing known. See Suspect.
	Silent func() []string
	// Version of this program.
	Version string
	Logger  *slog.Logger
}

// Manager is the manager's side of a node.
type Manager struct {
	cfg        Config
	forward    *forward.Forwarder
	control    *control.Server
	ca         *caserver.Server
	dispatcher *dispatcher.Dispatcher
	audit      *audit.Log
	exec       *execbroker.Broker
	learn      *learnbroker.Broker
	keys       *keymanager.Manager
	events     *events.Log
	volumes    *volumebroker.Broker
}

// New makes all parts of a manager and starts none.
func New(cfg Config) (*Manager, error) {
	if cfg.NodeID == "" || cfg.Store == nil || cfg.Raft == nil || cfg.Dial == nil || cfg.LocalKey == nil || cfg.Logger == nil ||
		cfg.BackupDir == "" {
		return nil, errors.New("manager: NodeID, Store, Raft, Dial, LocalKey, BackupDir and Logger are required")
	}
	if cfg.Reseal == nil {
		cfg.Reseal = cfg.Store.Reseal
	}
	if cfg.CompileSeccomp == nil {
		cfg.CompileSeccomp = func([]byte) error { return nil }
	}
	if cfg.Distrust == nil {
		cfg.Distrust = func(store.Index, []*api.Revocation) {}
	}
	m := &Manager{cfg: cfg}
	var err error
	if m.events, err = events.New(events.Config{Store: cfg.Store}); err != nil {
		return nil, err
	}
	logs, err := logbroker.New(logbroker.Config{Store: cfg.Store, Dial: cfg.Dial})
	if err != nil {
		return nil, err
	}
	stats, err := statsbroker.New(cfg.Dial)
	if err != nil {
		return nil, err
	}
	if m.ca, err = caserver.New(caserver.Config{Store: cfg.Store, Logger: cfg.Logger, Identity: cfg.Identity}); err != nil {
		return nil, err
	}
	m.control, err = control.New(control.Config{
		Store: cfg.Store, Logs: logs, Stats: stats, Placement: scheduler.NewExplainer(), Planner: newPlanner(), Users: m.ca,
		NewUnlockKey: func() string { return seal.NewKey().UnlockKey() },
		NewBackupKey: func() string { return seal.NewKey().BackupKey() }, Identity: cfg.Identity,
	})
	if err != nil {
		return nil, err
	}
	m.audit, err = audit.New(audit.Config{NodeID: cfg.NodeID, Store: cfg.Store, Send: m.sendAudit, Logger: cfg.Logger})
	if err != nil {
		return nil, err
	}
	m.exec, err = execbroker.New(execbroker.Config{
		Store: cfg.Store, Dial: cfg.Dial, Ended: m.audit.Ended,
		Began: func(ctx context.Context, s execbroker.Subject) {
			m.audit.Began(ctx, object.KindTask.String(), s.TaskID, s.TaskName, s.Summary)
		},
		About: func(ctx context.Context, s execbroker.Subject) {
			m.audit.About(ctx, object.KindTask.String(), s.TaskID, s.TaskName, s.Summary)
		},
	})
	if err != nil {
		return nil, err
	}
	m.volumes, err = volumebroker.New(volumebroker.Config{
		NodeID: cfg.NodeID, Store: cfg.Store, Dial: cfg.Dial,
		About: func(ctx context.Context, s volumebroker.Subject) {
			m.audit.About(ctx, "volume", s.NodeID, s.Name, s.Summary)
		},
	})
	if err != nil {
		return nil, err
	}
	m.learn, err = learnbroker.New(learnbroker.Config{
		Store: cfg.Store, Dial: cfg.Dial, Compile: cfg.CompileSeccomp, Ended: m.audit.Ended,
		Began: func(ctx context.Context, id, name, summary string) {
			m.audit.Began(ctx, object.KindService.String(), id, name, summary)
		},
	})
	if err != nil {
		return nil, err
	}
	dial := func(address, nodeID string) (*grpc.ClientConn, error) { return cfg.Dial(address, nodeID) }
	m.dispatcher, err = dispatcher.New(dispatcher.Config{
		Store: cfg.Store, Dial: dial, Log: cfg.Logger, Delivered: m.audit.Delivered, Silent: cfg.Silent,
	})
	if err != nil {
		return nil, err
	}
	m.keys, err = keymanager.New(keymanager.Config{
		NodeID: cfg.NodeID, Store: cfg.Store, DataKey: cfg.Store, Reseal: cfg.Reseal, LocalKey: cfg.LocalKey, Report: m.reportDataKey,
		Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	m.forward, err = forward.New(forward.Config{
		NodeID: cfg.NodeID, Leadership: cfg.Store.Leadership, Dial: dial, Origin: authz.Origin,
	})
	return m, err
}

// Register adds the manager's services to a server. A server for people needs only Control.
func (m *Manager) Register(r grpc.ServiceRegistrar) {
	api.RegisterControlServer(r, m.control)
	api.RegisterCAServer(r, m.ca)
	api.RegisterDispatcherServer(r, m.dispatcher)
	api.RegisterRaftServer(r, m.cfg.Raft)
	api.RegisterAuditServer(r, m.audit)
	api.RegisterTasksServer(r, m.exec)
	api.RegisterLearningServer(r, m.learn)
	api.RegisterEventsServer(r, m.events)
	api.RegisterVolumesServer(r, m.volumes)
}

// Interceptor sends calls that need the leader to it, and records those that are answered here in the audit log. It comes after the
// interceptors that turn errors into statuses and that authorize.
func (m *Manager) Interceptor() grpc.UnaryServerInterceptor {
	forward, record := m.forward.Unary(), m.audit.Unary()
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return forward(ctx, request, info, func(ctx context.Context, request any) (any, error) {
			return record(ctx, request, info, handler)
		})
	}
}

// Audit is the door to the audit log for calls that Interceptor does not see: streams, and refused ones.
func (m *Manager) Audit() *audit.Log { return m.audit }

// sendAudit gets events to the leader, in a call of this manager's own.
func (m *Manager) sendAudit(ctx context.Context, request *api.RecordAuditRequest) error {
	call := &grpc.UnaryServerInfo{FullMethod: api.Audit_RecordAudit_FullMethodName}
	_, err := m.forward.Unary()(ctx, request, call, func(ctx context.Context, _ any) (any, error) {
		return m.audit.RecordAudit(ctx, request)
	})
	return err
}

// reportDataKey tells the leader of this manager's data key, in a call of this manager's own.
func (m *Manager) reportDataKey(ctx context.Context, key *api.DataKeyStatus) error {
	call := &grpc.UnaryServerInfo{FullMethod: api.Control_ReportDataKey_FullMethodName}
	request := &api.ReportDataKeyRequest{NodeId: m.cfg.NodeID, DataKey: key}
	_, err := m.forward.Unary()(ctx, request, call, func(ctx context.Context, _ any) (any, error) {
		return m.control.ReportDataKey(ctx, request)
	})
	return err
}

// RenewOwn renews this manager's own certificate while it leads, without a connection: with one that has expired it could make none.
func (m *Manager) RenewOwn(ctx context.Context, request *api.RenewCertificateRequest) (*api.RenewCertificateResponse, error) {
	if leader, address, self := m.cfg.Store.Leader(); !self {
		return nil, fmt.Errorf("renew the certificate of a manager by itself: node %s at %s leads", leader, address)
	}
	return m.ca.RenewCertificate(authz.NewContext(ctx, authz.Caller{Kind: api.Caller_CALLER_MANAGER, NodeID: m.cfg.NodeID}), request)
}

// Ready reports whether a node is up, as far as this manager knows.
func (m *Manager) Ready(nodeID string) bool {
	var node *api.Node
	err := m.cfg.Store.View(func(tx store.ReadTx) (err error) {
		node, err = store.Get[*api.Node](tx, nodeID)
		return err
	})
	return err == nil && node.GetStatus().GetState() == api.NodeState_NODE_STATE_READY
}

// Suspect says that a node's machine did not answer when it was tried: a leader that has not heard it since asks whether it lives. It does
// not block.
func (m *Manager) Suspect(nodeID string, tried time.Time) { m.dispatcher.Suspect(nodeID, tried) }

// Nodes is what this manager knows of nodes, for the interceptor that authorizes.
func (m *Manager) Nodes() authz.Nodes { return authz.NewNodes(m.cfg.Store) }

// Users is what this manager knows of users, for the interceptor that authorizes.
func (m *Manager) Users() authz.Users { return authz.NewUsers(m.cfg.Store) }

// Run runs the store and everything that depends on it until ctx ends, and then returns nil, or until the store can't go on.
func (m *Manager) Run(ctx context.Context) error {
	kept, stopStore := context.WithCancel(context.WithoutCancel(ctx)) // beyond ctx, to hand over
	defer stopStore()
	working, stopWork := context.WithCancel(ctx)
	defer stopWork()
	stored := make(chan error, 1)
	go func() {
		defer stopWork()
		stored <- m.cfg.Store.Run(kept)
	}()
	err := m.work(working)
	m.handOver(kept)
	stopStore()
	return errors.Join(<-stored, err, m.forward.Close())
}

// work runs what depends on the store, and the loops of each tenure.
func (m *Manager) work(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.dispatcher.Run(ctx) })
	group.Go(func() error { return m.keys.Run(ctx) })
	group.Go(func() error { return m.followSettings(ctx) })
	group.Go(func() error { return m.audit.Run(ctx) })
	group.Go(func() error { return m.events.Run(ctx) })
	t := &tenures{leadership: m.cfg.Store.Leadership, loops: m.loops, logger: m.cfg.Logger}
	group.Go(func() error { return t.run(ctx) })
	if err := group.Wait(); err != nil && !errors.Is(err, store.ErrStopped) {
		return fmt.Errorf("manager: %w", err)
	}
	return nil
}

// handOver lets another manager lead, if this one does and there is another (M2).
func (m *Manager) handOver(ctx context.Context) {
	if _, _, self := m.cfg.Store.Leader(); !self {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverTimeout)
	defer cancel()
	if err := m.cfg.Store.TransferLeadership(ctx); err != nil {
		m.cfg.Logger.Info("no other manager took over", "reason", err.Error())
	}
}

// Bootstrap stores what a swarm begins with. It waits until the store, which must be running, leads; calling it again changes
// nothing.
func Bootstrap(ctx context.Context, s *store.Store, founding caserver.Founding) error {
	for {
		leadership, changed := s.Leadership()
		if leadership.Self {
			err := s.Update(ctx, "bootstrap-"+founding.Cluster.GetId(), func(tx store.Tx) error {
				if err := tx.Create(founding.Cluster); err != nil {
					return err
				}
				if err := tx.Create(founding.Node); err != nil {
					return err
				}
				return tx.Audit(chain.Encode(&api.AuditEvent{
					Method: "Daemon.InitSwarm", CallerKind: "admin", Address: "@", Manager: founding.Node.GetId(),
					ObjectKind: "cluster", ObjectId: founding.Cluster.GetId(), Result: "ok", Summary: "created",
				}))
			})
			switch {
			case err == nil, errors.Is(err, store.ErrDuplicate):
				return nil
			case !errors.Is(err, store.ErrNotLeader):
				return fmt.Errorf("store the new cluster: %w", err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("store the new cluster: %w", context.Cause(ctx))
		case <-changed:
		}
	}
}
