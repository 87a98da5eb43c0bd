package orchestratortest

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

// Heeds checks what a loop with [orchestrator.Heeds] builds on: where a core wants nothing, and which does not select a change of a task, the core
// wants nothing after it, either, nor to be asked sooner.
func Heeds(t *testing.T, core orchestrator.Core, which func(v orchestrator.View, old, now *api.Task) bool) {
	t.Helper()
	unheeded := 0
	rapid.Check(t, func(rt *rapid.T) {
		w := heedWorld{rt, storetest.New(t)}
		service := w.fill(t)
		effects, due := core(time.Unix(0, 0), w.view(service, 0))
		if len(effects) > 0 {
			return
		}
		old, now := w.change(t)
		if old == nil && now == nil {
			return
		}
		slot := max(old.GetSlot(), now.GetSlot())
		if which(w.view(service, slot), old, now) {
			return
		}
		unheeded++
		effects, wake := core(time.Unix(0, 0), w.view(service, 0))
		if len(effects) > 0 {
			rt.Fatalf("a change that it does not heed makes the core want %+v:\n  %v\n->%v", effects, old, now)
		}
		if !wake.IsZero() && (due.IsZero() || wake.Before(due)) {
			rt.Fatalf("a change that it does not heed makes the core wake at %s instead of %s:\n  %v\n->%v", wake, due, old, now)
		}
	})
	if unheeded == 0 {
		t.Error("all changes were heeded")
	}
}

// heedWorld is a service and its tasks.
type heedWorld struct {
	*rapid.T
	store *store.Store
}

func (w heedWorld) one(label string, n int) int { return rapid.IntRange(0, n-1).Draw(w.T, label) }

func (w heedWorld) view(service string, slot uint64) (v orchestrator.View) {
	err := w.store.View(func(tx store.ReadTx) (err error) {
		v, err = orchestrator.ReadView(tx, service, slot)
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
	return v
}

// fill makes nodes, a service, or none, and tasks that are mostly as the service wants them.
func (w heedWorld) fill(t *testing.T) (service string) {
	node := func(id string, availability api.Availability, state api.NodeState) *api.Node {
		return &api.Node{
			Id: id, Spec: &api.NodeSpec{Availability: availability}, Status: &api.NodeStatus{State: state}, Description: &api.NodeDescription{Hostname: id},
		}
	}
	storetest.Create(
		t, w.store,
		node("good", api.Availability_AVAILABILITY_ACTIVE, api.NodeState_NODE_STATE_READY),
		node("drained", api.Availability_AVAILABILITY_DRAIN, api.NodeState_NODE_STATE_READY),
		node("down", api.Availability_AVAILABILITY_ACTIVE, api.NodeState_NODE_STATE_DOWN),
	)
	const replicas = 3
	s := &api.Service{Id: "s", SpecVersion: 2, Spec: &api.ServiceSpec{
		Task: &api.TaskSpec{Placement: &api.Placement{}}, Replicated: &api.ReplicatedService{Replicas: replicas},
		Update: &api.UpdateConfig{Order: api.UpdateOrder(w.one("order", 3))},
	}}
	if w.one("constrained", 4) == 0 {
		s.Spec.Task.Placement.Constraints = []string{"node.hostname==drained"}
	}
	if state := w.one("update", 6); state > 0 {
		s.UpdateStatus = &api.UpdateStatus{State: api.UpdateState(state)}
	}
	if w.one("removed", 4) > 0 {
		storetest.Create(t, w.store, s)
	}
	for i := range replicas + w.one("more", 3) {
		task := &api.Task{
			Id: fmt.Sprint("t", i), ServiceId: "s", Slot: uint64(i + 1), SpecVersion: 2, Spec: &api.TaskSpec{Placement: &api.Placement{}},
			DesiredState: api.TaskState_TASK_STATE_RUNNING, Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_PENDING},
		}
		if i >= replicas { // history, or another one beside
			task.Slot = uint64(w.one("slot", replicas) + 1)
			task.SpecVersion = uint64(w.one("version", 2) + 1)
		}
		for range w.one("steps", 5) {
			w.disturb(task)
		}
		storetest.Create(t, w.store, task)
	}
	return "s"
}

// disturb changes a task as loops and nodes do.
func (w heedWorld) disturb(t *api.Task) {
	switch w.one("action", 6) {
	case 0:
		t.DesiredState = max(t.DesiredState, api.TaskState_TASK_STATE_SHUTDOWN)
	case 1:
		t.DesiredState = api.TaskState_TASK_STATE_REMOVE
	case 2:
		if t.GetNodeId() != "" {
			t.Status = &api.TaskStatus{State: max(t.GetStatus().GetState(), api.TaskState_TASK_STATE_FAILED)}
		}
	default:
		if t.GetNodeId() == "" {
			t.NodeId = []string{"good", "good", "good", "drained", "down"}[w.one("node", 5)]
			t.Status = &api.TaskStatus{State: api.TaskState_TASK_STATE_ASSIGNED}
			return
		}
		t.Status = &api.TaskStatus{
			State: max(t.GetStatus().GetState(), api.TaskState_TASK_STATE_RUNNING), RunningAt: timestamppb.New(time.Unix(0, 0)),
		}
	}
}

// change changes one task, or none.
func (w heedWorld) change(t *testing.T) (old, now *api.Task) {
	id := fmt.Sprint("t", w.one("task", 5))
	err := w.store.Update(t.Context(), "", func(tx store.Tx) error {
		var err error
		if old, err = store.Get[*api.Task](tx, id); err != nil {
			return nil
		}
		if w.one("deleted", 4) == 0 {
			now = nil
			return tx.Delete(object.KindTask, id)
		}
		now = proto.CloneOf(old)
		w.disturb(now)
		return tx.Update(now)
	})
	if err != nil {
		w.Fatal(err)
	}
	return old, now
}
