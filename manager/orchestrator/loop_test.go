package orchestrator_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/allocator"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/orchestrator/global"
	"github.com/skep-io/skep/manager/orchestrator/job"
	"github.com/skep-io/skep/manager/orchestrator/reaper"
	"github.com/skep-io/skep/manager/orchestrator/replicated"
	"github.com/skep-io/skep/manager/orchestrator/restart"
	"github.com/skep-io/skep/manager/orchestrator/update"
	"github.com/skep-io/skep/manager/scheduler"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

type runner interface{ Run(context.Context) error }

// startLoops runs all loops of a leader until the returned function is called.
func startLoops(t testing.TB, s *store.Store) (stop func()) {
	t.Helper()
	cfg := orchestrator.Config{Store: s}
	var runners []runner
	for _, create := range []func(orchestrator.Config) (*orchestrator.Loop, error){replicated.New, global.New, job.New, restart.New, update.New, reaper.New} {
		l, err := create(cfg)
		if err != nil {
			t.Fatal(err)
		}
		runners = append(runners, l)
	}
	a, err := allocator.New(allocator.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	sched, err := scheduler.New(scheduler.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, r := range append(runners, a, sched) {
		running.Go(func() {
			if err := r.Run(ctx); err != nil {
				t.Errorf("Run returned %v", err)
			}
		})
	}
	return sync.OnceFunc(func() { cancel(); running.Wait() })
}

// settle lets loops and agents work until neither has anything to do at this moment.
func (w *world) settle() {
	for {
		synctest.Wait()
		w.check()
		if !w.progress(func(int) int { return 0 }, false) {
			return
		}
	}
}

// expect checks the tasks that run, and that no slot lacks one.
func (w *world) expect(what string, want int) {
	w.t.Helper()
	w.settle()
	running := map[uint64]bool{}
	for _, t := range all[*api.Task](w) {
		if taskstate.Live(t) && t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING {
			running[t.GetSlot()] = true
		}
	}
	if len(running) != want {
		w.t.Errorf("%s: %d slots run, want %d", what, len(running), want)
	}
}

func (w *world) runningOn(node string) (ids []string) {
	for _, t := range storetest.List[*api.Task](w.t, w.s, store.ByNode(node)) {
		if t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING {
			ids = append(ids, t.GetId())
		}
	}
	return ids
}

// TestLoops_LifeOfAService: from its creation to its removal, with a change of leaders at every turn.
func TestLoops_LifeOfAService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, false)
		stop := startLoops(t, w.s)
		t.Cleanup(func() { stop() })
		newLeader := func() { stop(); stop = startLoops(t, w.s) }
		service := simService("s", 3, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1)
		service.Spec.Task.Restart.Delay = durationpb.New(5 * time.Second)
		storetest.Create(t, w.s, simNode("n1"), simNode("n2"), simNode("n3"))
		storetest.Create(t, w.s, service)
		w.expect("created", 3)

		newLeader()
		edit(w, w.runningOn("n1")[0], func(t *api.Task) { t.Status = &api.TaskStatus{State: api.TaskState_TASK_STATE_FAILED} })
		w.expect("a task failed", 2)
		time.Sleep(3 * time.Second)
		newLeader() // the delay survives it
		w.expect("3 s later", 2)
		time.Sleep(2 * time.Second)
		w.expect("5 s later", 3)

		newLeader()
		edit(w, "n2", func(n *api.Node) { n.Spec.Availability = api.Availability_AVAILABILITY_DRAIN })
		w.expect("a node drained", 3)
		if got := w.runningOn("n2"); len(got) > 0 {
			t.Errorf("tasks %v run on the drained node", got)
		}
		edit(w, "n3", func(n *api.Node) {
			n.Status = &api.NodeStatus{State: api.NodeState_NODE_STATE_DOWN, ChangedAt: timestamppb.New(time.Now())}
		})
		w.expect("a node down", 3)
		newLeader()
		edit(w, "n3", func(n *api.Node) { n.Status.State = api.NodeState_NODE_STATE_READY })
		w.expect("it came back", 3)
		if got := len(w.runningOn("n1")); got != 3 {
			t.Errorf("%d tasks run on n1, want 3", got)
		}

		edit(w, "s", func(s *api.Service) { s.Spec.Replicated.Replicas = 100 })
		w.expect("scaled up", 100)
		edit(w, "s", func(s *api.Service) { s.Spec.Replicated.Replicas = 4 })
		w.expect("scaled down", 4)
		newLeader()
		edit(w, "s", func(s *api.Service) { s.SpecVersion++ })
		begun := time.Now()
		for {
			w.settle()
			if storetest.Get[*api.Service](t, w.s, "s").GetUpdateStatus().GetState() == api.UpdateState_UPDATE_STATE_COMPLETED {
				break
			}
			if time.Since(begun) > time.Minute {
				t.Fatal("the update does not complete")
			}
			time.Sleep(time.Second)
			newLeader()
		}
		if took := time.Since(begun); took < 6*time.Second {
			t.Errorf("the update of four slots with a delay of 2 s took %v", took)
		}
		w.expect("updated", 4)

		w.update(func(tx store.Tx) error { return tx.Delete(object.KindService, "s") })
		w.expect("removed", 0)
		if got := len(all[*api.Task](w)); got != 0 {
			t.Errorf("%d tasks are left", got)
		}
	})
}

// TestLoops_HistoryIsTrimmed: a service that fails for ever leaves the last five tasks, and the limit can be changed.
func TestLoops_HistoryIsTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, false)
		t.Cleanup(startLoops(t, w.s))
		storetest.Create(t, w.s, simNode("n1"), &api.Cluster{Id: "c", Spec: &api.ClusterSpec{TaskHistoryLimit: 5}})
		storetest.Create(t, w.s, simService("s", 1, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
		for range 12 {
			w.settle()
			w.progress(func(int) int { return 0 }, true)
			for _, id := range w.runningOn("n1") {
				edit(w, id, func(t *api.Task) { t.Status = &api.TaskStatus{State: api.TaskState_TASK_STATE_FAILED} })
			}
			time.Sleep(2 * time.Second)
		}
		w.expect("after many failures", 1)
		if got := len(all[*api.Task](w)); got != 6 {
			t.Errorf("%d tasks are kept, want five and the present one", got)
		}
		edit(w, "c", func(c *api.Cluster) { c.Spec.TaskHistoryLimit = 1 })
		w.settle()
		if got := len(all[*api.Task](w)); got != 2 {
			t.Errorf("%d tasks are kept, want one and the present one", got)
		}
	})
}

// TestLoops_OrphansAfterADay: tasks of a node that stays down are given up by themselves.
func TestLoops_OrphansAfterADay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, false)
		t.Cleanup(startLoops(t, w.s))
		storetest.Create(t, w.s, simNode("n1"), simService("s", 1, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
		w.expect("created", 1)
		id := w.runningOn("n1")[0]
		edit(w, "n1", func(n *api.Node) {
			n.Status = &api.NodeStatus{State: api.NodeState_NODE_STATE_DOWN, ChangedAt: timestamppb.New(time.Now())}
		})
		time.Sleep(24*time.Hour - time.Second)
		w.settle()
		if got := storetest.Get[*api.Task](t, w.s, id).GetStatus().GetState(); got != api.TaskState_TASK_STATE_RUNNING {
			t.Errorf("after almost a day: got %v, want RUNNING", got)
		}
		time.Sleep(2 * time.Second)
		w.settle()
		if got := storetest.Get[*api.Task](t, w.s, id).GetStatus().GetState(); got != api.TaskState_TASK_STATE_ORPHANED {
			t.Errorf("after a day: got %v, want ORPHANED", got)
		}
	})
}

// TestLoops_LargeServicesTakeSeveralTransactions: no transaction grows with the service.
func TestLoops_LargeServicesTakeSeveralTransactions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, t.Fatalf, false)
		stop := startLoops(t, w.s)
		t.Cleanup(stop)
		service := simService("s", 0, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1)
		for i := range 100 {
			service.Spec.Task.Container.Env = append(service.Spec.Task.Container.Env, fmt.Sprintf("NAME_%d=%0100d", i, i))
		}
		storetest.Create(t, w.s, simNode("n1"), service)
		const many = 500 // 11 kB each: more than a log entry takes
		edit(w, "s", func(s *api.Service) { s.Spec.Replicated.Replicas = many })
		synctest.Wait()
		w.check()
		if got := len(w.tasks); got != many {
			t.Errorf("got %d tasks, want %d", got, many)
		}
		edit(w, "s", func(s *api.Service) { s.Spec.Replicated.Replicas = 0 })
		stop() // of agents that were never there
		synctest.Wait()
	})
}

// slow is a rider for which each commit takes long, as on a slow disk.
type slow struct{ takes time.Duration }

func (slow) Event([]store.Change) []byte { return []byte("event") }
func (s slow) Committed()                { time.Sleep(s.takes) }

// TestLoop_DoesNotRestForCommits: while a loop waits for Raft it costs nothing, and looks at what comes meanwhile as soon as that is done.
func TestLoop_DoesNotRestForCommits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const commit = 10 * time.Second
		w := newWorld(t, t.Fatalf, false)
		began := time.Now()
		seen := map[string]time.Duration{}
		core := func(_ time.Time, v orchestrator.View) (effects []orchestrator.Effect, _ time.Time) {
			if _, ok := seen[v.ServiceID]; !ok {
				seen[v.ServiceID] = time.Since(began)
			}
			if v.ServiceID == "a" && len(v.Tasks) == 0 {
				effects = append(effects, orchestrator.Effect{Create: &orchestrator.Creation{Slot: 1, Desired: api.TaskState_TASK_STATE_RUNNING}})
			}
			return effects, time.Time{}
		}
		l, err := orchestrator.New("test", core, orchestrator.Config{Store: w.s})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(store.WithRider(t.Context(), slow{commit}))
		var running sync.WaitGroup
		running.Go(func() {
			if err := l.Run(ctx); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(func() { cancel(); running.Wait() })
		storetest.Create(t, w.s, simService("a", 1, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
		synctest.Wait()
		storetest.Create(t, w.s, simService("b", 1, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
		time.Sleep(10 * commit)
		synctest.Wait()
		if at, ok := seen["b"]; !ok || at != commit {
			t.Errorf("what came during a commit of %v was seen after %v (%v)", commit, at, ok)
		}
	})
}

// TestLoop_DecidesOnceWhileTheStoreIsAsItWas: a look at a large service costs, and what was decided on the state that a transaction sees needs
// no other one. What changed in between does.
func TestLoop_DecidesOnceWhileTheStoreIsAsItWas(t *testing.T) {
	for name, changes := range map[string]bool{"as it was": false, "changed": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, t.Fatalf, false)
				looks := 0
				runCore(t, w.s, func(_ time.Time, v orchestrator.View) (effects []orchestrator.Effect, _ time.Time) {
					if len(v.Tasks) > 0 {
						return nil, time.Time{}
					}
					looks++
					if changes && looks == 1 {
						edit(w, "s", func(s *api.Service) { s.Spec.Annotations.Labels = map[string]string{"changed": "yes"} })
					}
					slot := uint64(1 + len(v.Service.GetSpec().GetAnnotations().GetLabels()))
					return []orchestrator.Effect{{Create: &orchestrator.Creation{Slot: slot, Desired: api.TaskState_TASK_STATE_RUNNING}}}, time.Time{}
				})
				storetest.Create(t, w.s, simService("s", 1, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
				synctest.Wait()
				wantLooks, wantSlot := 1, uint64(1)
				if changes {
					wantLooks, wantSlot = 2, 2
				}
				if looks != wantLooks {
					t.Errorf("the core was asked %d times before there was a task, want %d", looks, wantLooks)
				}
				if tasks := storetest.List[*api.Task](t, w.s); len(tasks) != 1 || tasks[0].GetSlot() != wantSlot {
					t.Errorf("got tasks %v, want one in slot %d", tasks, wantSlot)
				}
			})
		})
	}
}

func TestNew_NeedsAStore(t *testing.T) {
	if _, err := replicated.New(orchestrator.Config{}); err == nil {
		t.Error("a config without store was accepted")
	}
}
