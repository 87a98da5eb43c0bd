package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

const (
	// retryDelay is how long the loop waits after the store was too busy.
	retryDelay = 100 * time.Millisecond
	// maxPiece is how many decisions are written before the loop takes in what happened meanwhile: a watch that nobody follows for too long has
	// to start anew, and the core with it.
	maxPiece = 4000
)

// Config is what a Loop needs.
type Config struct {
	// Store is the cluster's state. Required.
	Store *store.Store
	// Log gets what hinders the loop; nil discards it.
	Log *slog.Logger
}

// Loop feeds a Core from the store and commits its decisions.
type Loop struct {
	// Constant after New.
	store *store.Store
	log   *slog.Logger
}

// New returns a loop. It starts nothing.
func New(cfg Config) (*Loop, error) {
	if cfg.Store == nil {
		return nil, errors.New("scheduler: the config has no store")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Loop{store: cfg.Store, log: cfg.Log.With("loop", "scheduler")}, nil
}

// Run does the loop's work until ctx ends, and then returns nil. It returns an error that matches store.ErrNotLeader when
// this manager does not lead any more, and any other error when the store fails.
func (l *Loop) Run(ctx context.Context) error {
	if err := store.Follow(ctx, l.run); err != nil {
		return fmt.Errorf("scheduler: %w", err)
	}
	return nil
}

func (l *Loop) run(ctx context.Context) error {
	watch, err := l.store.Watch(ctx, 0, object.KindCluster, object.KindNode, object.KindTask)
	if err != nil {
		return err
	}
	changes, err := everything(watch.Snapshot())
	if err != nil {
		return err
	}
	core := NewCore()
	for {
		if changes, err = l.commit(ctx, watch, core.Step(time.Now(), changes)); err != nil {
			return err
		}
		if len(changes) == 0 {
			if err := wait(ctx, watch.Ready()); err != nil {
				return err
			}
		}
		if changes, err = news(watch, changes); err != nil {
			return err
		}
	}
}

func wait(ctx context.Context, ready <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-ready:
		return nil
	}
}

// everything returns a snapshot as changes.
func everything(tx store.ReadTx) ([]Change, error) {
	nodes, err := store.List[*api.Node](tx)
	if err != nil {
		return nil, err
	}
	tasks, err := store.List[*api.Task](tx)
	if err != nil {
		return nil, err
	}
	clusters, err := store.List[*api.Cluster](tx)
	if err != nil {
		return nil, err
	}
	changes := make([]Change, 0, len(clusters)+len(nodes)+len(tasks))
	for _, c := range clusters {
		changes = append(changes, Change{Cluster: c})
	}
	for _, n := range nodes {
		changes = append(changes, Change{Node: n})
	}
	for _, t := range tasks {
		changes = append(changes, Change{Task: t})
	}
	return changes, nil
}

// news appends to changes what the watch has.
func news(watch *store.Watcher, changes []Change) ([]Change, error) {
	for {
		batch, ok, err := watch.TryNext()
		if err != nil || !ok {
			return changes, err
		}
		for _, change := range batch.Changes {
			next := Change{Deleted: change.Action == store.ActionDelete}
			switch o := change.Object.(type) {
			case *api.Cluster:
				next.Cluster = o
			case *api.Node:
				next.Node = o
			case *api.Task:
				next.Task = o
			default:
				continue
			}
			changes = append(changes, next)
		}
	}
}

// commit writes the decisions, in as many transactions as it takes, and returns what the core does not know then: the tasks whose news would
// not reach it by themselves, and after them what happened meanwhile.
func (l *Loop) commit(ctx context.Context, watch *store.Watcher, decisions []Decision) ([]Change, error) {
	var dropped, meanwhile []Change
	for piece := range slices.Chunk(decisions, maxPiece) {
		more, err := l.commitPiece(ctx, piece)
		if err != nil {
			return nil, err
		}
		dropped = append(dropped, more...)
		if meanwhile, err = news(watch, meanwhile); err != nil {
			return nil, err
		}
	}
	return append(dropped, meanwhile...), nil
}

// commitPiece is commit for some of the decisions. A decision about an object that changed since the core saw it is not written; the tasks whose
// news would not reach the core by themselves are returned for it.
func (l *Loop) commitPiece(ctx context.Context, decisions []Decision) (dropped []Change, err error) {
	refused := make([]*api.Task, len(decisions))
	done, err := l.store.BatchIndependent(ctx, len(decisions), func(tx store.Tx, i int) (err error) {
		refused[i], err = write(tx, decisions[i])
		return err
	})
	if err != nil && !errors.Is(err, store.ErrConflict) {
		return nil, err
	}
	for _, t := range refused[:done] {
		if t != nil {
			dropped = append(dropped, Change{Task: t})
		}
	}
	if err == nil {
		return dropped, nil
	}
	l.log.Warn("store is too busy, trying again", "error", err)
	for _, d := range decisions[done:] {
		dropped = append(dropped, Change{Task: d.Task})
	}
	return dropped, pause(ctx)
}

func pause(ctx context.Context) error {
	timer := time.NewTimer(retryDelay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// write puts a decision into a transaction. refused is the task when its news would not reach the core by themselves.
func write(tx store.Tx, d Decision) (refused *api.Task, err error) {
	t, err := store.Get[*api.Task](tx, d.Task.GetId())
	if errors.Is(err, store.ErrNotFound) || err == nil && t.GetMeta().GetVersion() != d.Task.GetMeta().GetVersion() {
		return nil, nil // its change is on the way to the core
	}
	if err != nil {
		return nil, err
	}
	if d.Node != nil {
		err := tx.Require(d.Node)
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrNotFound) {
			// The node's change is on its way; without this the core would go on to believe in the assignment.
			return t, nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, tx.Update(decide(time.Now(), t, d))
}

// decide returns t with a decision written into it.
func decide(now time.Time, t *api.Task, d Decision) *api.Task {
	decided := proto.CloneOf(t)
	decided.Status = &api.TaskStatus{
		Timestamp: timestamppb.New(now), State: t.GetStatus().GetState(), Message: t.GetStatus().GetMessage(), Err: d.Reason,
	}
	if d.Node == nil {
		return decided
	}
	decided.NodeId = d.Node.GetId()
	decided.GenericResources = d.Generic
	decided.Status.State = api.TaskState_TASK_STATE_ASSIGNED
	decided.Status.Message = "scheduler assigned task to node"
	return decided
}
