package orchestrator_test

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// drainNode drains a node as people do; 0 is without a timeout.
func drainNode(w *world, id string, timeout time.Duration) {
	edit(w, id, func(n *api.Node) {
		n.Spec.Availability, n.Status.DrainBeganAt = api.Availability_AVAILABILITY_DRAIN, timestamppb.New(time.Now())
		if timeout > 0 {
			n.Spec.DrainTimeout = durationpb.New(timeout)
		}
	})
}

// running is how many tasks run that are to.
func (w *world) running() (n int) {
	for _, t := range all[*api.Task](w) {
		if taskstate.Running(t) {
			n++
		}
	}
	return n
}

// Under start-first a drain never has fewer tasks running than the service wants, through changes of leaders.
func TestLoops_DrainStartsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, true)
		stop := startLoops(t, w.s)
		t.Cleanup(func() { stop() })
		storetest.Create(t, w.s, simNode("n1"))
		storetest.Create(t, w.s, simService("s", 4, api.UpdateOrder_UPDATE_ORDER_START_FIRST, 2))
		w.expect("created", 4)
		storetest.Create(t, w.s, simNode("n2"))
		drainNode(w, "n1", 0)
		began := time.Now()
		for len(w.runningOn("n1")) > 0 {
			synctest.Wait()
			w.check()
			if got := w.running(); got < 4 || got > 6 {
				t.Fatalf("%d tasks run, want 4, and no more than 2 beside them", got)
			}
			if advance(w, true) || advance(w, false) {
				continue
			}
			if time.Since(began) > time.Minute {
				t.Fatal("the drain does not end")
			}
			stop()
			stop = startLoops(t, w.s)
			time.Sleep(time.Second)
		}
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("two times two tasks with a delay of 2 s took %v", took)
		}
		w.expect("drained", 4)
	})
}

// Where nothing can take the tasks, those that start first stay until the timeout, and then go all at once.
func TestLoops_DrainEndsWithItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, true)
		t.Cleanup(startLoops(t, w.s))
		storetest.Create(t, w.s, simNode("n1"))
		storetest.Create(t, w.s, simService("s", 4, api.UpdateOrder_UPDATE_ORDER_START_FIRST, 1))
		w.expect("created", 4)
		drainNode(w, "n1", time.Hour)
		w.expect("drained, with nowhere to go", 4)
		time.Sleep(59 * time.Minute)
		w.expect("just before the timeout", 4)
		time.Sleep(time.Minute)
		w.expect("after it", 0)
		storetest.Create(t, w.s, simNode("n2"))
		w.expect("another node came", 4)
	})
}

// A drain that ends early leaves the tasks where they are, one in each slot.
func TestLoops_DrainIsTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, true)
		t.Cleanup(startLoops(t, w.s))
		storetest.Create(t, w.s, simNode("n1"))
		storetest.Create(t, w.s, simService("s", 2, api.UpdateOrder_UPDATE_ORDER_START_FIRST, 0))
		w.expect("created", 2)
		drainNode(w, "n1", 0)
		w.settle()
		if got := len(all[*api.Task](w)); got != 4 {
			t.Fatalf("there are %d tasks, want two more that wait for a node", got)
		}
		edit(w, "n1", func(n *api.Node) { n.Spec.Availability = api.Availability_AVAILABILITY_ACTIVE })
		w.expect("active again", 2)
		if got := len(w.runningOn("n1")); got != 2 {
			t.Errorf("%d tasks run on n1", got)
		}
	})
}

// What was to run in place of a task on a drained node and is not to be restarted is tried once, also where no history is kept.
func TestLoops_DrainTriesOnceWithoutHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, true)
		t.Cleanup(startLoops(t, w.s))
		storetest.Create(t, w.s, &api.Cluster{Id: "c", Spec: &api.ClusterSpec{TaskHistoryLimit: 0}})
		service := simService("s", 1, api.UpdateOrder_UPDATE_ORDER_START_FIRST, 1)
		service.Spec.Task.Restart.Condition = api.RestartCondition_RESTART_CONDITION_NONE
		storetest.Create(t, w.s, simNode("n1"))
		storetest.Create(t, w.s, service)
		w.expect("created", 1)
		time.Sleep(time.Minute) // a try counts that was made after the drain began, and after the task that runs
		edit(w, "n1", func(n *api.Node) {
			n.Spec.Availability, n.Status.DrainBeganAt = api.Availability_AVAILABILITY_DRAIN, timestamppb.New(time.Now().Add(-time.Second))
		})
		storetest.Create(t, w.s, simNode("n2"))
		tried := 0
		for range 5 {
			synctest.Wait()
			for _, next := range storetest.List[*api.Task](t, w.s, store.ByNode("n2")) {
				if taskstate.Live(next) && !taskstate.Ended(next) {
					tried++
					edit(w, next.GetId(), func(t *api.Task) {
						t.Status = &api.TaskStatus{State: api.TaskState_TASK_STATE_REJECTED, Timestamp: timestamppb.New(time.Now())}
					})
				}
			}
			time.Sleep(time.Minute)
		}
		if tried != 1 {
			t.Errorf("it was tried %d times on n2", tried)
		}
		w.expect("it stays", 1)
	})
}
