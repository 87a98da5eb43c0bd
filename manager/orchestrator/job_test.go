package orchestrator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// end has the first running task of a service end in a state, and reports whether there was one.
func (w *world) end(service string, state api.TaskState) bool {
	for _, t := range storetest.List[*api.Task](w.t, w.s, store.ByService(service)) {
		if taskstate.Live(t) && t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING {
			edit(w, t.GetId(), func(t *api.Task) { report(t, state) })
			return true
		}
	}
	return false
}

// start lets agents work until tasks run, but those of jobs not end.
func (w *world) start() {
	for {
		synctest.Wait()
		w.check()
		moved := false
		for _, t := range all[*api.Task](w) {
			if next, ok := nextState(t, w.refuse != nil && w.refuse(t), false); ok {
				edit(w, t.GetId(), func(t *api.Task) { report(t, next) })
				moved = true
			}
		}
		if !moved {
			return
		}
	}
}

// TestLoops_JobsCompleteExactly: seven completions, two at once, with a new leader and a failure between any two, and no more after
// the last; then the same again for a new iteration.
func TestLoops_JobsCompleteExactly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, false)
		stop := startLoops(t, w.s)
		t.Cleanup(func() { stop() })
		newLeader := func() { stop(); stop = startLoops(t, w.s) }
		const total = 7
		storetest.Create(t, w.s, simNode("n1"), simNode("n2"), simJob("job1", total))
		for iteration := range 2 {
			leaders := 0
			for w.start(); w.end("job1", api.TaskState_TASK_STATE_COMPLETE); w.start() {
				newLeader()
				leaders++
				w.start()
				w.end("job1", api.TaskState_TASK_STATE_FAILED)
				newLeader()
				time.Sleep(2 * time.Second) // longer than the delay of a restart
			}
			if leaders < 5 {
				t.Errorf("only %d leaders were changed", leaders)
			}
			for range 3 {
				newLeader()
				time.Sleep(time.Minute)
				w.start()
			}
			if got := len(w.completions); got != total*(iteration+1) {
				t.Errorf("iteration %d: %d slots ended well altogether", iteration, got)
			}
			edit(w, "job1", func(s *api.Service) { changeSpec(s, api.FailureAction_FAILURE_ACTION_PAUSE) })
		}
	})
}

// TestLoops_GlobalJobsRunOnceOnEachNode: on a node that joins too, on a drained one not.
func TestLoops_GlobalJobsRunOnceOnEachNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, false)
		t.Cleanup(startLoops(t, w.s))
		drained := simNode("n2")
		drained.Spec.Availability = api.Availability_AVAILABILITY_DRAIN
		storetest.Create(t, w.s, simNode("n1"), drained, globalJob("job1"))
		ends := func() (n int) {
			for w.start(); w.end("job1", api.TaskState_TASK_STATE_COMPLETE); w.start() {
				n++
			}
			return n
		}
		if got := ends(); got != 1 {
			t.Errorf("it ran %d times on one node", got)
		}
		storetest.Create(t, w.s, simNode("n3"))
		if got := ends(); got != 1 {
			t.Errorf("it ran %d times on the node that joined", got)
		}
		setNode(w, "n1", api.NodeState_NODE_STATE_READY, api.Availability_AVAILABILITY_DRAIN)
		setNode(w, "n1", api.NodeState_NODE_STATE_READY, api.Availability_AVAILABILITY_ACTIVE)
		if got := ends(); got != 0 {
			t.Errorf("it ran %d times on a node where it was done", got)
		}
		setNode(w, "n2", api.NodeState_NODE_STATE_READY, api.Availability_AVAILABILITY_ACTIVE)
		if got := ends(); got != 1 {
			t.Errorf("it ran %d times on the node that was drained", got)
		}
	})
}
