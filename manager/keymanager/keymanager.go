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
	Store *store.Store
	// Reseal makes a key the one that opens the store; it does nothing when it is that already.
	Reseal func(kek seal.Key, source seal.Source) error
	// LocalKey returns the key of this node's key file, and makes one if there is none.
	LocalKey func() (seal.Key, error)
	Logger   *slog.Logger
}

// Manager is the loop.
type Manager struct{ cfg Config }

// New returns a Manager.
func New(cfg Config) (*Manager, error) {
	if cfg.Store == nil || cfg.Reseal == nil || cfg.LocalKey == nil || cfg.Logger == nil {
		return nil, errors.New("keymanager: Store, Reseal, LocalKey and Logger are required")
	}
	return &Manager{cfg: cfg}, nil
}

// Run works until ctx ends, and then returns nil, or until the store stops.
func (m *Manager) Run(ctx context.Context) error {
	for {
		err := m.run(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, store.ErrResync):
			return err
		}
	}
}

func (m *Manager) run(ctx context.Context) error {
	if err := m.catchUp(ctx); err != nil {
		return err
	}
	watch, err := m.cfg.Store.Watch(ctx, 0, object.KindCluster)
	if err != nil {
		return err
	}
	for {
		var retry <-chan time.Time
		if err := m.settle(); err != nil {
			m.cfg.Logger.Error("the store is not sealed by the key that it should be", "error", err)
			retry = time.After(retryAfter)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-retry:
		case <-watch.Ready():
			for ok := true; ok; {
				if _, ok, err = watch.TryNext(); err != nil {
					return err
				}
			}
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

// settle seals the store by the key that the cluster wants now.
func (m *Manager) settle() error {
	var clusters []*api.Cluster
	err := m.cfg.Store.View(func(tx store.ReadTx) (err error) {
		clusters, err = store.List[*api.Cluster](tx)
		return err
	})
	if err != nil || len(clusters) == 0 {
		return err // a manager that has just joined does not know yet
	}
	kek, source, err := m.wanted(clusters[0].GetUnlockKey())
	if err != nil {
		return err
	}
	return m.cfg.Reseal(kek, source)
}

func (m *Manager) wanted(unlockKey string) (seal.Key, seal.Source, error) {
	if unlockKey == "" {
		kek, err := m.cfg.LocalKey()
		return kek, seal.SourceKeyFile, err
	}
	kek, err := seal.ParseUnlockKey(unlockKey)
	if err != nil {
		return seal.Key{}, 0, fmt.Errorf("unlock key in the store: %w", err)
	}
	return kek, seal.SourceUnlockKey, nil
}
