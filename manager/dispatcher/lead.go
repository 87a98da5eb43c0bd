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
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var silent []silence
	for _, id := range d.cfg.Silent() {
		silent = append(silent, silence{id, time.Now()})
	}
	for {
		if err := d.question(ctx, silent); err != nil && ctx.Err() == nil {
			return fmt.Errorf("dispatcher: ask nodes whether they live: %w", err)
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
		timer.Reset(max(time.Until(next), 1))
		silent = nil
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-d.clusterChanged: // maybe the period
		case s := <-d.suspects:
			silent = []silence{s}
		}
	}
}

// maxSuspects is how many suspicions wait for the leader's loop: of more, heartbeats tell.
const maxSuspects = 1000

// silence is that a node's machine did not answer somebody who tried to reach it.
type silence struct {
	nodeID string
	tried  time.Time
}

// Suspect says that a node's machine did not answer when it was tried. Where this manager leads and has not heard the node since, it asks the
// node whether it lives, and takes it for down if it does not answer within a second. It does not block.
func (d *Dispatcher) Suspect(nodeID string, tried time.Time) {
	select {
	case d.suspects <- silence{nodeID, tried}:
	default:
	}
}

// question asks suspected nodes whether they live: each manager sees what is written, and tells its sessions.
func (d *Dispatcher) question(ctx context.Context, silent []silence) error {
	d.mu.Lock()
	now := time.Now()
	var ids []string
	for _, s := range silent {
		if d.alive.suspect(now, s.nodeID, s.tried) {
			ids = append(ids, s.nodeID)
		}
	}
	d.mu.Unlock()
	_, err := d.cfg.Store.Batch(ctx, len(ids), func(tx store.Tx, i int) error {
		return changeReady(tx, ids[i], func(s *api.NodeStatus) { s.SuspectedAt = timestamppb.New(now) })
	})
	if err != nil || len(ids) == 0 {
		return err
	}
	d.log.Info("nodes can't be reached by others, and are asked whether they live", "nodes", ids)
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, id := range ids {
		d.alive.questioned(time.Now(), id)
	}
	return nil
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
	done, err := d.cfg.Store.Batch(ctx, len(ids), func(tx store.Tx, i int) error { return changeReady(tx, ids[i], down) })
	if done > 0 {
		d.log.Info("nodes are down: they do not answer", "nodes", ids[:done])
	}
	return err
}

func down(s *api.NodeStatus) {
	s.State, s.Message, s.ChangedAt = api.NodeState_NODE_STATE_DOWN, "heartbeat failure", timestamppb.Now()
	if s.GetSuspectedAt() != nil {
		s.Message, s.SuspectedAt = "does not answer, and other nodes can't reach it either", nil
	}
}

// changeReady changes the status of a node that is ready; others have nothing to change.
func changeReady(tx store.Tx, id string, change func(*api.NodeStatus)) error {
	old, err := store.Get[*api.Node](tx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && old.GetStatus().GetState() != api.NodeState_NODE_STATE_READY {
		return nil
	}
	if err != nil {
		return err
	}
	n := proto.CloneOf(old)
	change(n.GetStatus())
	return tx.Update(n)
}
