package orchestrator_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

// BenchmarkLife measures what a task costs the leader's loops until it runs, and until it is forgotten once its service is removed, without
// Raft. Nodes run and stop tasks at once. What a task costs must not depend on how many there are.
func BenchmarkLife(b *testing.B) {
	for _, replicas := range []uint64{3000, 30_000, 100_000} {
		b.Run(fmt.Sprintf("replicas=%d", replicas), func(b *testing.B) {
			s := storetest.New(b)
			for i := range 1000 {
				storetest.Create(b, s, simNode(fmt.Sprint("n", i)))
			}
			stop := startLoops(b, s)
			defer stop()
			nodes := &instantNodes{store: s, changed: make(chan struct{}, 1)}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- store.Follow(ctx, nodes.run) }()
			defer func() {
				cancel()
				if err := <-ended; err != nil {
					b.Error(err)
				}
			}()
			n := 0
			for b.Loop() {
				n++
				id := fmt.Sprint("s", n)
				storetest.Create(b, s, simService(id, replicas, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
				nodes.await(int64(replicas), int64(replicas))
				err := s.Update(ctx, "", func(tx store.Tx) error { return tx.Delete(object.KindService, id) })
				if err != nil {
					b.Fatal(err)
				}
				nodes.await(0, 0)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(replicas), "us/task")
		})
	}
}

// instantNodes run and stop tasks at once.
type instantNodes struct {
	store           *store.Store
	running, stored atomic.Int64
	changed         chan struct{}
}

// await returns when that many tasks run, and there are that many.
func (n *instantNodes) await(running, stored int64) {
	for n.running.Load() != running || n.stored.Load() != stored {
		<-n.changed
	}
}

func (n *instantNodes) run(ctx context.Context) error {
	watch, err := n.store.Watch(ctx, 0, object.KindTask)
	if err != nil {
		return err
	}
	tasks, err := store.List[*api.Task](watch.Snapshot())
	if err != nil {
		return err
	}
	n.stored.Store(int64(len(tasks)))
	n.running.Store(0)
	for _, t := range tasks {
		if taskstate.Running(t) {
			n.running.Add(1)
		}
	}
	for {
		if err := n.report(ctx, tasks); err != nil {
			return err
		}
		select {
		case n.changed <- struct{}{}:
		default:
		}
		batch, err := watch.Next(ctx)
		tasks = tasks[:0]
		for ok := true; ok && err == nil; batch, ok, err = watch.TryNext() {
			for _, change := range batch.Changes {
				tasks = append(tasks, n.count(change))
			}
		}
		if err != nil {
			return err
		}
	}
}

// count counts what a change makes another number of, and returns its task.
func (n *instantNodes) count(change store.Change) *api.Task {
	t := change.Object.(*api.Task)
	old, _ := change.Old.(*api.Task)
	switch {
	case change.Action == store.ActionCreate:
		n.stored.Add(1)
	case change.Action == store.ActionDelete:
		n.stored.Add(-1)
	case taskstate.Running(t) && !taskstate.Running(old):
		n.running.Add(1)
	case !taskstate.Running(t) && taskstate.Running(old):
		n.running.Add(-1)
	}
	return t
}

// report writes what becomes of tasks at once.
func (n *instantNodes) report(ctx context.Context, tasks []*api.Task) error {
	_, err := n.store.Batch(ctx, len(tasks), func(tx store.Tx, i int) error {
		old, err := store.Get[*api.Task](tx, tasks[i].GetId())
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		state := old.GetStatus().GetState()
		switch {
		case err != nil:
			return err
		case state == api.TaskState_TASK_STATE_ASSIGNED && old.GetDesiredState() == api.TaskState_TASK_STATE_RUNNING:
			state = api.TaskState_TASK_STATE_RUNNING
		case taskstate.HoldsNode(old) && old.GetDesiredState() > api.TaskState_TASK_STATE_RUNNING:
			state = api.TaskState_TASK_STATE_SHUTDOWN
		default:
			return nil
		}
		t := proto.CloneOf(old)
		t.Status.State = state
		return tx.Update(t)
	})
	return err
}
