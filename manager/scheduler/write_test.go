package scheduler

import (
	"log/slog"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// TestWrite_OnlyWhatTheCoreStillKnows: a decision about a task or a node that changed meanwhile is not written (I13), and of
// a dropped one the core hears.
func TestWrite_OnlyWhatTheCoreStillKnows(t *testing.T) {
	task := func(id string) *api.Task {
		return &api.Task{Id: id, ServiceId: "s", Slot: 1, Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_PENDING}}
	}
	s := storetest.New(t)
	storetest.Create(t, s, &api.Node{Id: "same"}, &api.Node{Id: "drained"}, &api.Node{Id: "removed"},
		task("good"), task("changed"), task("deleted"), task("b"), task("c"))
	seen := func(id string) *api.Task { return storetest.Get[*api.Task](t, s, id) }
	node := func(id string) *api.Node { return storetest.Get[*api.Node](t, s, id) }
	decisions := []Decision{
		{Task: seen("good"), Node: node("same")},
		{Task: seen("changed"), Node: node("same")},
		{Task: seen("deleted"), Node: node("same")},
		{Task: seen("b"), Node: node("drained")},
		{Task: seen("c"), Node: node("removed")},
	}
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		changed := proto.CloneOf(seen("changed"))
		changed.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN
		if err := tx.Update(changed); err != nil {
			return err
		}
		drained := proto.CloneOf(node("drained"))
		drained.Spec = &api.NodeSpec{Availability: api.Availability_AVAILABILITY_DRAIN}
		if err := tx.Update(drained); err != nil {
			return err
		}
		if err := tx.Delete(4, "deleted"); err != nil {
			return err
		}
		return tx.Delete(2, "removed")
	})
	if err != nil {
		t.Fatal(err)
	}
	loop, err := New(Config{Store: s, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	refused, err := loop.commitPiece(t.Context(), decisions)
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[string]string{"good": "same", "changed": "", "b": "", "c": ""} {
		if got := seen(id).GetNodeId(); got != want {
			t.Errorf("task %s: got node %q, want %q", id, got, want)
		}
	}
	if len(refused) != 2 || refused[0].Task.GetId() != "b" || refused[1].Task.GetId() != "c" {
		t.Errorf("got refused %v, want b and c", refused)
	}
}
