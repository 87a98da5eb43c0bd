package replicated

import (
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/orchestrator/orchestratortest"
)

func TestHeeds(t *testing.T) { orchestratortest.Heeds(t, Step, heeds) }

// The end of a slot's history is no reason to look at a whole service, wherever it was, unless it is on a node that is drained: how many slots
// move at once is counted by that.
func TestHeeds_Deletions(t *testing.T) {
	nodes := map[string]*api.Node{
		"active":  {Spec: &api.NodeSpec{Availability: api.Availability_AVAILABILITY_ACTIVE}},
		"drained": {Spec: &api.NodeSpec{Availability: api.Availability_AVAILABILITY_DRAIN}},
	}
	task := func(node string, state api.TaskState) *api.Task {
		return &api.Task{NodeId: node, DesiredState: state, Status: &api.TaskStatus{State: state}}
	}
	v := orchestrator.View{
		Service: &api.Service{Spec: &api.ServiceSpec{Task: &api.TaskSpec{Placement: &api.Placement{}}}},
		Tasks:   []*api.Task{task("active", api.TaskState_TASK_STATE_RUNNING)},
		Node:    func(id string) *api.Node { return nodes[id] },
	}
	for node, want := range map[string]bool{"active": false, "drained": true, "": false, "gone": false} {
		if got := heeds(v, task(node, api.TaskState_TASK_STATE_SHUTDOWN), nil); got != want {
			t.Errorf("the end of a task on node %q is heeded: %v", node, got)
		}
	}
}
