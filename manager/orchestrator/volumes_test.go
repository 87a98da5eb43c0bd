package orchestrator_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store/storetest"
)

// A task comes back to the node of its volume however long that is away, and never runs beside the one that was there.
func TestLoops_TasksStayWithTheirVolumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, false)
		stop := startLoops(t, w.s)
		t.Cleanup(func() { stop() })
		service := simService("s", 1, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1)
		service.Spec.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_VOLUME, Source: "data", Target: "/d"}}
		storetest.Create(t, w.s, simNode("n1"), simNode("n2"), service)
		w.expect("created", 1)
		first := w.runningOn("n1")
		if len(first) != 1 {
			t.Fatalf("tasks %v run on n1, want one", first)
		}
		edit(w, first[0], func(t *api.Task) { t.Status.Container = &api.ContainerStatus{ContainerId: t.GetId()} })

		for _, newLeader := range []bool{false, true} {
			setNode(w, "n1", api.NodeState_NODE_STATE_DOWN, api.Availability_AVAILABILITY_ACTIVE)
			w.settle()
			time.Sleep(30 * time.Hour) // longer than other tasks of nodes that are down are waited for
			if newLeader {
				stop()
				stop = startLoops(t, w.s)
			}
			w.settle()
			if got := w.runningOn("n2"); len(got) > 0 {
				t.Fatalf("tasks %v run without their volume", got)
			}
			if got := waiting(w); !strings.Contains(got, "volume data is on node n1, which is down") {
				t.Errorf("it waits and says %q", got)
			}
			setNode(w, "n1", api.NodeState_NODE_STATE_READY, api.Availability_AVAILABILITY_ACTIVE)
			for more := true; more; more = advance(w, true) || advance(w, false) {
				synctest.Wait()
				w.check()
				if n := occupying(w); n > 1 {
					t.Fatalf("%d tasks are at the volume", n)
				}
			}
			w.expect("the node is back", 1)
			if got := w.runningOn("n1"); len(got) != 1 || got[0] == first[0] {
				t.Fatalf("tasks %v run on the node that is back, want a new one", got)
			}
		}
	})
}

// advance lets the agent of a task, one that is to run or one that is not, report its next state. It reports whether there was one.
func advance(w *world, live bool) bool {
	for _, t := range all[*api.Task](w) {
		if next, ok := nextState(t, false, false); ok && taskstate.Live(t) == live {
			edit(w, t.GetId(), func(t *api.Task) { t.Status = &api.TaskStatus{State: next, Timestamp: timestamppb.New(time.Now())} })
			return true
		}
	}
	return false
}

// waiting returns what the task without a node says.
func waiting(w *world) string {
	for _, t := range all[*api.Task](w) {
		if taskstate.Live(t) && t.GetNodeId() == "" {
			return t.GetStatus().GetErr()
		}
	}
	return "nothing: no task waits"
}

// occupying counts the tasks that run, or may.
func occupying(w *world) (n int) {
	for _, t := range all[*api.Task](w) {
		if s := t.GetStatus().GetState(); s >= api.TaskState_TASK_STATE_STARTING && s <= api.TaskState_TASK_STATE_RUNNING {
			n++
		}
	}
	return n
}
