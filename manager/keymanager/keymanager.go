package keymanager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
)

// retryAfter is the pause after a failure.
const retryAfter = 5 * time.Second

// Config is what a Manager needs; all fields are required.
type Config struct {
	// NodeID is this node's.
	NodeID string
	Store  *store.Store
	// DataKey is what Store is on a manager: it has a data key.
	DataKey DataKey
	// Reseal makes a key the one that opens the store; it does nothing when it is that already.
	Reseal func(kek seal.Key, source seal.Source) error
	// LocalKey returns this node's own key and where it comes from, and makes one if there is none.
	LocalKey func(ctx context.Context) (seal.Key, seal.Source, error)
	// Report tells the leader, whoever that is, of this manager's data key.
	Report func(ctx context.Context, key *api.DataKeyStatus) error
	Logger *slog.Logger
}

// DataKey is a store's data key; see the methods of store.Store.
type DataKey interface {
	RotateDataKey(ctx context.Context) error
	DataKey() (madeAt time.Time, generation uint64)
	DataKeyServed(generation uint64) error
}

// Manager is the loop.
type Manager struct{ cfg Config }

// New returns a Manager.
func New(cfg Config) (*Manager, error) {
	if cfg.NodeID == "" || cfg.Store == nil || cfg.DataKey == nil || cfg.Reseal == nil || cfg.LocalKey == nil || cfg.Report == nil ||
		cfg.Logger == nil {
		return nil, errors.New("keymanager: NodeID, Store, DataKey, Reseal, LocalKey, Report and Logger are required")
	}
	return &Manager{cfg: cfg}, nil
}

// Run works until ctx ends, and then returns nil, or until the store stops.
func (m *Manager) Run(ctx context.Context) error { return store.Follow(ctx, m.run) }

func (m *Manager) run(ctx context.Context) error {
	if err := m.catchUp(ctx); err != nil {
		return err
	}
	watch, err := m.cfg.Store.Watch(ctx, 0, object.KindCluster)
	if err != nil {
		return err
	}
	for {
		rest, err := m.settle(ctx)
		if err != nil && ctx.Err() == nil {
			m.cfg.Logger.Error("the store is not sealed by the keys that it should be", "error", err)
			rest = retryAfter
		}
		if err := watch.Await(ctx, time.Now().Add(rest)); err != nil {
			return err
		}
	}
}

// catchUp waits until the store knows what was so before this manager started. What it shows until then is an old snapshot, whose
// key may be one that was changed since, or none: sealing by it would open the disk to those who were to be shut out.
func (m *Manager) catchUp(ctx context.Context) error {
	for {
		err := m.cfg.Store.Barrier(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, store.ErrStopped) {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(retryAfter):
		}
	}
}

// settle seals the store by the keys that the cluster wants now, and returns after what time it must look again.
func (m *Manager) settle(ctx context.Context) (time.Duration, error) {
	cluster, self, err := m.view()
	if err != nil || cluster == nil {
		return longestRest, err // a manager that has just joined does not know yet
	}
	kek, source, err := m.wanted(ctx, cluster.GetUnlockKey())
	if err != nil {
		return 0, err
	}
	if err := m.cfg.Reseal(kek, source); err != nil {
		return 0, err
	}
	if err := m.rotate(ctx, cluster); err != nil {
		return 0, err
	}
	if err := m.report(ctx, self); err != nil {
		m.cfg.Logger.Debug("the leader does not know of this manager's data key yet", "error", err)
		return retryAfter, nil
	}
	madeAt, _ := m.cfg.DataKey.DataKey()
	return max(untilDue(time.Now(), madeAt, cluster.GetSpec().GetDataKeyRotation().AsDuration()), retryAfter), nil
}

// view returns the cluster and this node as they are now, or nil where they are not known yet.
func (m *Manager) view() (cluster *api.Cluster, self *api.Node, err error) {
	err = m.cfg.Store.View(func(tx store.ReadTx) error {
		if cluster, err = store.TheCluster(tx); err != nil || cluster == nil {
			return err
		}
		if self, err = store.Get[*api.Node](tx, m.cfg.NodeID); errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
	return cluster, self, err
}

func (m *Manager) wanted(ctx context.Context, unlockKey string) (seal.Key, seal.Source, error) {
	if unlockKey == "" {
		return m.cfg.LocalKey(ctx)
	}
	kek, err := seal.ParseUnlockKey(unlockKey)
	if err != nil {
		return seal.Key{}, 0, fmt.Errorf("unlock key in the store: %w", err)
	}
	return kek, seal.SourceUnlockKey, nil
}
