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

// inEachMode tests a service of each of the four modes that has one slot, on one node, in a swarm that keeps some history.
func inEachMode(t *testing.T, history int64, change func(*api.ServiceSpec), test func(t *testing.T, w *world, newLeader func())) {
	services := map[string]*api.Service{
		"replicated": simService("job1", 1, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1), "replicated job": simJob("job1", 1),
		"global": globalService("job1", api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1), "global job": globalJob("job1"),
	}
	for name, service := range services {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, t.Fatalf, false)
				stop := startLoops(t, w.s)
				t.Cleanup(func() { stop() })
				change(service.GetSpec())
				storetest.Create(t, w.s, simNode("n1"), &api.Cluster{Id: "c", Spec: &api.ClusterSpec{TaskHistoryLimit: history}}, service)
				test(t, w, func() { stop(); stop = startLoops(t, w.s) })
			})
		})
	}
}

// TestLoops_RestartsAreCountedInEachMode: two restarts are two, though every leader but one is new, and an update starts the count anew. Swarm
// forgets to count for global jobs, and what it counted when the leader changes.
func TestLoops_RestartsAreCountedInEachMode(t *testing.T) {
	limit := func(s *api.ServiceSpec) { s.Task.Restart.MaxAttempts = 2 }
	inEachMode(t, 5, limit, func(t *testing.T, w *world, newLeader func()) {
		for _, spec := range []string{"first", "second"} {
			failures := 0
			for w.start(); failures < 10 && w.end("job1", api.TaskState_TASK_STATE_FAILED); w.start() {
				failures++
				newLeader()
				time.Sleep(2 * time.Second) // longer than the delay of a restart
			}
			if failures != 3 {
				t.Errorf("%s spec: %d tries, want the first and two more", spec, failures)
			}
			edit(w, "job1", func(s *api.Service) { changeSpec(s, api.FailureAction_FAILURE_ACTION_CONTINUE) })
		}
	})
}

// TestLoops_HistoryHoldsInEachMode: of twenty tasks that failed, two are kept. Swarm keeps all of jobs.
func TestLoops_HistoryHoldsInEachMode(t *testing.T) {
	inEachMode(t, 2, func(*api.ServiceSpec) {}, func(t *testing.T, w *world, _ func()) {
		for try := range 20 {
			w.start()
			if !w.end("job1", api.TaskState_TASK_STATE_FAILED) {
				t.Fatalf("try %d: nothing runs", try)
			}
			time.Sleep(2 * time.Second)
		}
		w.start()
		live, dead := 0, 0
		for _, task := range storetest.List[*api.Task](t, w.s, store.ByService("job1")) {
			if taskstate.Live(task) {
				live++
			} else {
				dead++
			}
		}
		if live != 1 || dead != 2 {
			t.Errorf("%d live and %d dead tasks are there, want one and two", live, dead)
		}
	})
}
