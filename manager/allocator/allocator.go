package allocator

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
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

const (
	// retryDelay is how long the loop waits after the store was too busy.
	retryDelay = 100 * time.Millisecond
	// maxPiece is for how many tasks the loop writes before it sees what came meanwhile: a watch that nobody follows for too long has to start
	// anew.
	maxPiece = 4000
)

// Step returns the task as it is once it has what it needs, or nil when t is not new or not meant to run any more.
// It does not change t.
func Step(now time.Time, t *api.Task) *api.Task {
	if t.GetStatus().GetState() > api.TaskState_TASK_STATE_NEW || !taskstate.Live(t) {
		return nil
	}
	allocated := proto.CloneOf(t)
	for _, port := range allocated.GetEndpoint().GetPorts() {
		settle(port)
	}
	allocated.Status = &api.TaskStatus{
		State: api.TaskState_TASK_STATE_PENDING, Timestamp: timestamppb.New(now), Message: "pending task scheduling",
	}
	return allocated
}

func settle(port *api.PortConfig) {
	if port.GetPublishedPort() == 0 {
		port.PublishedPort = port.GetTargetPort()
	}
	if port.GetProtocol() == api.Protocol_PROTOCOL_UNSPECIFIED {
		port.Protocol = api.Protocol_PROTOCOL_TCP
	}
	if port.GetPublishMode() == api.PublishMode_PUBLISH_MODE_UNSPECIFIED {
		port.PublishMode = api.PublishMode_PUBLISH_MODE_HOST
	}
}

// Config is what a Loop needs.
type Config struct {
	// Store is the cluster's state. Required.
	Store *store.Store
	// Log gets what hinders the loop; nil discards it.
	Log *slog.Logger
}

// Loop allocates for every new task.
type Loop struct {
	// Constant after New.
	store *store.Store
	log   *slog.Logger
	// Owned by Run: ids of tasks that were NEW when last seen.
	waiting map[string]bool
}

// New returns a loop. It starts nothing.
func New(cfg Config) (*Loop, error) {
	if cfg.Store == nil {
		return nil, errors.New("allocator: the config has no store")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Loop{store: cfg.Store, log: cfg.Log.With("loop", "allocator")}, nil
}

// Run does the loop's work until ctx ends, and then returns nil. It returns an error that matches store.ErrNotLeader when
// this manager does not lead any more, and any other error when the store fails.
func (l *Loop) Run(ctx context.Context) error {
	if err := store.Follow(ctx, l.run); err != nil {
		return fmt.Errorf("allocator: %w", err)
	}
	return nil
}

func (l *Loop) run(ctx context.Context) error {
	watch, err := l.store.Watch(ctx, 0, object.KindTask)
	if err != nil {
		return err
	}
	tasks, err := store.List[*api.Task](watch.Snapshot())
	if err != nil {
		return err
	}
	l.waiting = map[string]bool{}
	for _, t := range tasks {
		l.note(t)
	}
	for {
		if err := l.work(ctx); err != nil {
			return err
		}
		var batch store.Batch
		more := true
		if len(l.waiting) == 0 {
			batch, err = watch.Next(ctx)
		}
		for ; more && err == nil; batch, more, err = watch.TryNext() {
			for _, change := range batch.Changes {
				if t, isTask := change.Object.(*api.Task); isTask && change.Action != store.ActionDelete {
					l.note(t)
				}
			}
		}
		if err != nil {
			return err
		}
	}
}

func (l *Loop) note(t *api.Task) {
	if t.GetStatus().GetState() == api.TaskState_TASK_STATE_NEW {
		l.waiting[t.GetId()] = true
	}
}

// work allocates for waiting tasks, as many as it should at once.
func (l *Loop) work(ctx context.Context) error {
	ids := make([]string, 0, min(len(l.waiting), maxPiece))
	for id := range l.waiting {
		if ids = append(ids, id); len(ids) == maxPiece {
			break
		}
	}
	slices.Sort(ids)
	done, err := l.store.BatchIndependent(ctx, len(ids), func(tx store.Tx, i int) error { return allocate(tx, ids[i]) })
	for _, id := range ids[:done] {
		delete(l.waiting, id)
	}
	if errors.Is(err, store.ErrConflict) {
		l.log.Warn("store is too busy, trying again", "error", err)
		return pause(ctx)
	}
	return err
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

// allocate handles a waiting task, if it still exists.
func allocate(tx store.Tx, id string) error {
	t, err := store.Get[*api.Task](tx, id)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if allocated := Step(time.Now(), t); allocated != nil {
		return tx.Update(allocated)
	}
	return nil
}
