package dispatcher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
)

// Lead decides which nodes are down. The leader calls it when it begins to lead; it returns nil when ctx ends, and an error
// that matches store.ErrNotLeader when this manager does not lead any more.
func (d *Dispatcher) Lead(ctx context.Context) error {
	if err := d.beginLeading(); err != nil {
		return fmt.Errorf("dispatcher: %w", err)
	}
	defer d.endLeading()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-d.clusterChanged: // maybe the period
		}
		period, err := d.period()
		if err != nil {
			return fmt.Errorf("dispatcher: %w", err)
		}
		d.mu.Lock()
		down, next := d.alive.step(time.Now(), period)
		d.mu.Unlock()
		if err := d.markDown(ctx, down); err != nil && ctx.Err() == nil {
			return fmt.Errorf("dispatcher: mark nodes down: %w", err)
		}
		timer.Reset(time.Until(next))
	}
}

func (d *Dispatcher) beginLeading() error {
	period, err := d.period()
	if err != nil {
		return err
	}
	var ready []string
	err = d.cfg.Store.View(func(tx store.ReadTx) error {
		nodes, err := store.List[*api.Node](tx)
		for _, n := range nodes {
			if n.GetStatus().GetState() == api.NodeState_NODE_STATE_READY {
				ready = append(ready, n.GetId())
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.alive = newLiveness(time.Now(), period, ready)
	return nil
}

func (d *Dispatcher) endLeading() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.alive = nil
}

// markDown writes that nodes are down.
func (d *Dispatcher) markDown(ctx context.Context, ids []string) error {
	done, err := d.cfg.Store.Batch(ctx, len(ids), func(tx store.Tx, i int) error { return down(tx, ids[i]) })
	if done > 0 {
		d.log.Info("nodes are down: no heartbeat for three periods", "nodes", ids[:done])
	}
	return err
}

func down(tx store.Tx, id string) error {
	old, err := store.Get[*api.Node](tx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && old.GetStatus().GetState() != api.NodeState_NODE_STATE_READY {
		return nil
	}
	if err != nil {
		return err
	}
	n := proto.CloneOf(old)
	n.Status.State = api.NodeState_NODE_STATE_DOWN
	n.Status.Message = "heartbeat failure"
	n.Status.ChangedAt = timestamppb.New(time.Now())
	return tx.Update(n)
}
