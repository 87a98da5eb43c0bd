package audit

import (
	"context"
	"errors"
	"fmt"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// DefaultRetention is the size of the audit log in bytes of a cluster that names none: some 180,000 entries.
const DefaultRetention = 32 << 20

// Retain drops the oldest segments of a log that is larger than the cluster wants it, while this manager leads. It returns nil when ctx ends.
func (l *Log) Retain(ctx context.Context) error {
	watcher, err := l.cfg.Store.Watch(ctx, 0, object.KindAuditSegment, object.KindCluster)
	if err != nil {
		return err
	}
	for {
		if err := l.prune(ctx); err != nil {
			return fmt.Errorf("drop old audit entries: %w", err)
		}
		_, err := watcher.Next(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, store.ErrResync):
			if watcher, err = l.cfg.Store.Watch(ctx, 0, object.KindAuditSegment, object.KindCluster); err != nil {
				return err
			}
		case err != nil:
			return err
		}
	}
}

// prune drops what is too much.
func (l *Log) prune(ctx context.Context) error {
	var old []*api.AuditSegment
	err := l.cfg.Store.View(func(tx store.ReadTx) (err error) {
		old, err = surplus(tx)
		return err
	})
	if err != nil || len(old) == 0 {
		return err
	}
	err = l.cfg.Store.Update(ctx, "", func(tx store.Tx) error {
		old, err := surplus(tx)
		if err != nil {
			return err
		}
		for _, s := range old {
			if err := tx.Delete(object.KindAuditSegment, s.GetId()); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		l.cfg.Logger.Info("dropped the oldest audit entries", "up_to", chain.Head(old[len(old)-1]).GetSequence())
	}
	return err
}

// surplus returns the oldest segments, without which the log has its size. The last is none of them.
func surplus(tx store.ReadTx) ([]*api.AuditSegment, error) {
	cluster, err := store.TheCluster(tx)
	if err != nil {
		return nil, err
	}
	limit := uint64(DefaultRetention)
	if wanted := cluster.GetSpec().GetAuditRetention(); wanted > 0 {
		limit = wanted
	}
	segments, err := store.List[*api.AuditSegment](tx)
	if err != nil {
		return nil, err
	}
	size := uint64(0)
	for i := len(segments) - 1; i >= 0; i-- {
		size += uint64(len(segments[i].GetEntries()))
		if size > limit && i < len(segments)-1 {
			return segments[:i+1], nil
		}
	}
	return nil, nil
}
