package manager

import (
	"context"
	"errors"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// followSettings gives this manager what the cluster object says, now and whenever it changes.
func (m *Manager) followSettings(ctx context.Context) error {
	for {
		watch, err := m.cfg.Store.Watch(ctx, 0, object.KindCluster)
		if err == nil {
			err = m.settings(ctx, watch)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, store.ErrResync):
			return err
		}
	}
}

// settings applies what is there and what a watcher says, until it ends.
func (m *Manager) settings(ctx context.Context, watch *store.Watcher) error {
	for {
		err := m.cfg.Store.View(func(tx store.ReadTx) error {
			clusters, err := store.List[*api.Cluster](tx)
			for _, cluster := range clusters {
				m.cfg.Store.SetSnapshotInterval(cluster.GetSpec().GetSnapshotInterval())
				m.cfg.Distrust(cluster.GetMeta().GetVersion(), cluster.GetRevocations())
			}
			return err
		})
		if err != nil {
			return err
		}
		if _, err := watch.Next(ctx); err != nil {
			return err
		}
	}
}
