package dispatcher

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
)

// defaultPeriod is the heartbeat period of a cluster that names none, as Docker's.
const defaultPeriod = 5 * time.Second

// Config is what a Dispatcher needs.
type Config struct {
	// Store is this manager's. Required.
	Store *store.Store
	// Dial makes a connection to a manager without waiting for it. Its peer must prove to be the node. Required where there
	// can be more than one manager.
	Dial func(address, nodeID string) (*grpc.ClientConn, error)
	// Leadership returns who leads, and a channel that is closed when that changes; nil asks the store.
	Leadership func() (store.Leadership, <-chan struct{})
	// Members returns the managers that agents can use; nil asks the store for the members of the Raft group.
	Members func() []*api.Member
	// CatchUp waits until the store has all that any manager has acknowledged before; nil is the store's Barrier.
	CatchUp func(ctx context.Context) error
	// Delivered is told, before a secret is sent to a node, of the node and the secret; nil is nobody. It must not block.
	Delivered func(to authz.Caller, secret *api.Secret)
	// Silent returns the nodes whose machines do not answer others, as far as known; nil is for nothing known. See Suspect.
	Silent func() []string
	// Log gets what an administrator may want to know; nil discards it.
	Log *slog.Logger
}

// Dispatcher is the service that agents talk to. The caller of each RPC is taken from its context, see package authz.
type Dispatcher struct {
	api.UnimplementedDispatcherServer

	// Constant after New.
	cfg Config
	log *slog.Logger
	// posted has room for one: there may be something in the outbox.
	posted chan struct{}
	// clusterChanged has room for one: the cluster object may be another one since the leader looked.
	clusterChanged chan struct{}
	// suspects hands Suspect's nodes to the leader's loop.
	suspects chan silence

	mu sync.Mutex
	// The fields below are guarded by mu.
	sessions  *sessions
	outbox    *outbox
	listeners map[string]map[*listener]bool
	// alive is nil unless this manager leads.
	alive *liveness
	// unanswered is since when there is something on its way to the leader that was not answered, or zero. It stays zero on the leader.
	unanswered time.Time
	// refused says that the last try did not just take too long.
	refused bool
}

// New returns a dispatcher. It starts nothing; its RPCs can be served as soon as Run is called.
func New(cfg Config) (*Dispatcher, error) {
	if cfg.Store == nil {
		return nil, errors.New("dispatcher: the config has no store")
	}
	if cfg.Dial == nil {
		cfg.Dial = func(string, string) (*grpc.ClientConn, error) {
			return nil, errors.New("this manager was not told how to reach others")
		}
	}
	if cfg.Leadership == nil {
		cfg.Leadership = cfg.Store.Leadership
	}
	if cfg.Members == nil {
		cfg.Members = func() []*api.Member { return membersOf(cfg.Store) }
	}
	if cfg.CatchUp == nil {
		cfg.CatchUp = cfg.Store.Barrier
	}
	if cfg.Delivered == nil {
		cfg.Delivered = func(authz.Caller, *api.Secret) {}
	}
	if cfg.Silent == nil {
		cfg.Silent = func() []string { return nil }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Dispatcher{
		cfg: cfg, log: cfg.Log.With("component", "dispatcher"), posted: make(chan struct{}, 1), clusterChanged: make(chan struct{}, 1), suspects: make(chan silence, maxSuspects),
		sessions: newSessions(), outbox: newOutbox(), listeners: map[string]map[*listener]bool{},
	}, nil
}

// membersOf returns the members of the Raft group that have caught up with it.
func membersOf(s *store.Store) []*api.Member {
	var members []*api.Member
	for _, m := range s.Status().Members {
		if !m.Member.GetLearner() {
			members = append(members, m.Member)
		}
	}
	return members
}

// Run serves until ctx ends, and then returns nil. All sessions have ended when it returns.
func (d *Dispatcher) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.deliver(ctx) })
	group.Go(func() error { return d.follow(ctx) })
	err := group.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sessions.byNode {
		d.sessions.end(s, errClosed)
	}
	return err
}

// period returns the period of heartbeats.
func (d *Dispatcher) period() (time.Duration, error) {
	period := defaultPeriod
	err := d.cfg.Store.View(func(tx store.ReadTx) error {
		cluster, err := store.TheCluster(tx)
		if p := cluster.GetSpec().GetDispatcherHeartbeat().AsDuration(); p > 0 {
			period = p
		}
		return err
	})
	return period, err
}

// post tells the goroutine that delivers.
func (d *Dispatcher) post() {
	select {
	case d.posted <- struct{}{}:
	default:
	}
}
