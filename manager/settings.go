package manager

import (
	"context"

	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// followSettings gives this manager what the cluster object says, now and whenever it changes.
func (m *Manager) followSettings(ctx context.Context) error { return store.Follow(ctx, m.settings) }

func (m *Manager) settings(ctx context.Context) error {
	watch, err := m.cfg.Store.Watch(ctx, 0, object.KindCluster)
	if err != nil {
		return err
	}
	for {
		err := m.cfg.Store.View(func(tx store.ReadTx) error {
			cluster, err := store.TheCluster(tx)
			if cluster != nil {
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
