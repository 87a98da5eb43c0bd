package dispatcher

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

// However a node's stream is woken, it has what is the node's at the end, and has sent what makes the one of the other.
func TestAssignment_FollowsItsTasks(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := storetest.New(t)
		storetest.Create(t, s, &api.Secret{Id: "secret", Spec: &api.SecretSpec{Data: []byte("value")}})
		d, err := New(Config{Store: s})
		if err != nil {
			rt.Fatal(err)
		}
		watch, err := s.Watch(t.Context(), 0, object.KindTask)
		if err != nil {
			rt.Fatal(err)
		}
		l, stop := d.listen("n1")
		defer stop()
		have, sent := assignment{}, map[string]*api.Task{}
		for range rapid.IntRange(1, 30).Draw(rt, "rounds") {
			for range rapid.IntRange(0, 4).Draw(rt, "changes") {
				disturb(t, rt, s)
			}
			wake(rt, d, watch)
			have = look(rt, d, l, have, sent)
			want := read(rt, s)
			if diff := cmp.Diff(want.tasks, sent, protocmp.Transform(), protocmp.IgnoreFields(&api.Task{}, "status", "meta")); diff != "" {
				rt.Fatalf("tasks (-want +sent):\n%s", diff)
			}
			if len(have.values) != len(want.values) {
				rt.Fatalf("%d values, want %d", len(have.values), len(want.values))
			}
		}
	})
}

// disturb does something to one of a few tasks.
func disturb(t *testing.T, rt *rapid.T, s *store.Store) {
	id := fmt.Sprint("t", rapid.IntRange(0, 5).Draw(rt, "task"))
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		old, err := store.Get[*api.Task](tx, id)
		if err != nil {
			made := &api.Task{Id: id, DesiredState: api.TaskState_TASK_STATE_RUNNING, Spec: &api.TaskSpec{Container: &api.ContainerSpec{Image: "i"}}}
			if rapid.IntRange(0, 9).Draw(rt, "secret") == 0 {
				made.Spec.Container.Secrets = []*api.SecretReference{{SecretId: "secret"}}
			}
			return tx.Create(made)
		}
		changed := proto.CloneOf(old)
		switch rapid.IntRange(0, 4).Draw(rt, "action") {
		case 0:
			return tx.Delete(object.KindTask, id)
		case 1:
			if old.GetNodeId() != "" {
				return nil // a task never moves
			}
			changed.NodeId = rapid.SampledFrom([]string{"n1", "n1", "n2"}).Draw(rt, "node")
			changed.Status = &api.TaskStatus{State: api.TaskState_TASK_STATE_ASSIGNED}
		case 2:
			changed.Status = &api.TaskStatus{State: rapid.SampledFrom([]api.TaskState{
				api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_SHUTDOWN,
			}).Draw(rt, "state")}
		case 3:
			changed.DesiredState = api.TaskState_TASK_STATE_REMOVE
		default:
			changed.SpecVersion++
		}
		return tx.Update(changed)
	})
	if err != nil {
		rt.Fatal(err)
	}
}

// wake does what the dispatcher does with the changes that there are.
func wake(rt *rapid.T, d *Dispatcher, watch *store.Watcher) {
	for {
		batch, more, err := watch.TryNext()
		if err != nil {
			rt.Fatal(err)
		}
		if !more {
			return
		}
		for _, change := range batch.Changes {
			if err := d.wakeFor(change); err != nil {
				rt.Fatal(err)
			}
		}
	}
}

// look is a turn of a stream, and what its node makes of what is sent.
func look(rt *rapid.T, d *Dispatcher, l *listener, have assignment, node map[string]*api.Task) (next assignment) {
	tasks, all := d.changed(l)
	err := d.cfg.Store.View(func(tx store.ReadTx) error {
		var news []*api.AssignmentChange
		var err error
		next, news, err = have.next(tx, "n1", tasks, all)
		for _, change := range news {
			switch task := change.GetTask(); {
			case task == nil:
			case change.GetAction() == api.AssignmentAction_ASSIGNMENT_ACTION_REMOVE:
				delete(node, task.GetId())
			default:
				node[task.GetId()] = task
			}
		}
		return err
	})
	if err != nil {
		rt.Fatal(err)
	}
	return next
}

// read is the node's assignment, from nothing.
func read(rt *rapid.T, s *store.Store) (a assignment) {
	err := s.View(func(tx store.ReadTx) (err error) {
		a, err = assigned(tx, "n1")
		return err
	})
	if err != nil {
		rt.Fatal(err)
	}
	return a
}

// What a node says of its tasks is no news to it: its stream sleeps on, however many of them report.
func TestAssignment_SleepsThroughReports(t *testing.T) {
	s := storetest.New(t)
	d, err := New(Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	l, stop := d.listen("n1")
	defer stop()
	before := &api.Task{Id: "t", NodeId: "n1", DesiredState: api.TaskState_TASK_STATE_RUNNING, Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_ASSIGNED}}
	after := proto.CloneOf(before)
	after.Status.State = api.TaskState_TASK_STATE_RUNNING
	if err := d.wakeFor(store.Change{Action: store.ActionUpdate, Old: before, Object: after}); err != nil {
		t.Fatal(err)
	}
	if len(l.wake) > 0 {
		t.Error("a report woke the stream of the node that made it")
	}
	stopped := proto.CloneOf(after)
	stopped.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN
	if err := d.wakeFor(store.Change{Action: store.ActionUpdate, Old: after, Object: stopped}); err != nil {
		t.Fatal(err)
	}
	if len(l.wake) == 0 {
		t.Error("a new desired state did not wake the stream")
	}
}
