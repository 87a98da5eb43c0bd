package orchestrator_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/store/storetest"
)

// reserving returns a task that runs, made at a second, which reserves memory and has generic resources.
func reserving(id string, second int64, memory int64, ids ...string) *api.Task {
	t := &api.Task{
		Id: id, NodeId: "n", Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING}, DesiredState: api.TaskState_TASK_STATE_RUNNING,
		Meta: &api.Meta{CreatedAt: timestamppb.New(time.Unix(second, 0))},
		Spec: &api.TaskSpec{Resources: &api.ResourceRequirements{Reservations: &api.Resources{MemoryBytes: memory}}},
	}
	if len(ids) > 0 {
		t.Spec.Resources.Reservations.Generic = []*api.GenericResource{{Kind: "gpu", Count: int64(len(ids))}}
		t.GenericResources = []*api.GenericResource{{Kind: "gpu", Ids: ids}}
	}
	return t
}

func TestCrowded_NoMoreTasksGoThanMust(t *testing.T) {
	stopping := reserving("stopping", 0, 8)
	stopping.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN
	for name, tt := range map[string]struct {
		memory int64
		gpus   []string
		tasks  []*api.Task
		want   string
	}{
		"all fit":                    {10, nil, []*api.Task{reserving("a", 1, 4), reserving("b", 2, 6)}, ""},
		"the youngest goes":          {9, nil, []*api.Task{reserving("b", 2, 6), reserving("a", 1, 4)}, "b"},
		"a smaller one stays":        {9, nil, []*api.Task{reserving("a", 1, 4), reserving("b", 2, 6), reserving("c", 3, 5)}, "b"},
		"none left":                  {4, nil, []*api.Task{reserving("a", 1, 4), reserving("b", 2, 1), reserving("c", 3, 0)}, "b"},
		"one that stops holds none":  {8, nil, []*api.Task{stopping, reserving("a", 1, 8)}, ""},
		"a node that says nothing":   {0, nil, []*api.Task{reserving("a", 1, 4)}, ""},
		"a thing vanished":           {10, []string{"y", "z"}, []*api.Task{reserving("a", 1, 1, "x"), reserving("b", 2, 1, "y"), reserving("c", 3, 20)}, "a c"},
		"a thing has one owner":      {10, []string{"x"}, []*api.Task{reserving("a", 2, 1, "x"), reserving("b", 1, 1, "x")}, "a"},
		"a kind that the node lacks": {10, nil, []*api.Task{reserving("a", 1, 1, "x"), reserving("b", 2, 1)}, "a"},
	} {
		n := &api.Node{Id: "n", Description: &api.NodeDescription{Resources: &api.Resources{MemoryBytes: tt.memory}}}
		if tt.gpus != nil {
			n.Description.Resources.Generic = []*api.GenericResource{{Kind: "gpu", Ids: tt.gpus}}
		}
		got := strings.Join(slices.Sorted(maps.Keys(orchestrator.Crowded(n, tt.tasks))), " ")
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

// TestLoops_TasksLeaveNodesThatAreUnfit: a label that goes, and memory that a node no longer has, move tasks to nodes that fit.
func TestLoops_TasksLeaveNodesThatAreUnfit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, false)
		stop := startLoops(t, w.s)
		t.Cleanup(func() { stop() })
		node := func(id string, memory int64) *api.Node {
			n := simNode(id)
			n.Spec.Annotations = &api.Annotations{Labels: map[string]string{"zone": "a"}}
			n.Description = &api.NodeDescription{Resources: &api.Resources{MemoryBytes: memory}}
			return n
		}
		s := simService("s", 4, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1)
		s.Spec.Task.Placement = &api.Placement{Constraints: []string{"node.labels.zone==a"}}
		s.Spec.Task.Resources = &api.ResourceRequirements{Reservations: &api.Resources{MemoryBytes: 10}}
		storetest.Create(t, w.s, node("n1", 40), node("n2", 40), s)
		w.expect("created", 4)
		if a, b := len(w.runningOn("n1")), len(w.runningOn("n2")); a != 2 || b != 2 {
			t.Fatalf("got %d and %d tasks, want 2 on each", a, b)
		}
		edit(w, "n1", func(n *api.Node) { n.Description.Resources.MemoryBytes = 15 })
		w.expect("a node lost memory", 4)
		if a, b := len(w.runningOn("n1")), len(w.runningOn("n2")); a != 1 || b != 3 {
			t.Errorf("after it lost memory, got %d and %d tasks, want 1 and 3", a, b)
		}
		edit(w, "n1", func(n *api.Node) { n.Spec.Annotations.Labels = nil })
		w.expect("a node lost its label", 4)
		if a := len(w.runningOn("n1")); a != 0 {
			t.Errorf("after it lost its label, %d tasks run on the node", a)
		}
		edit(w, "n2", func(n *api.Node) { n.Description.Images = []*api.ImageSummary{{Digest: "x"}} })
		w.expect("a node got an image", 4)
	})
}
