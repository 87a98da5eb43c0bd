package orchestrator_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// versions counts the tasks that run and are to, by the version of their spec: "3x1 2x2" is three of the first and two of the second.
func (w *world) versions(service string) string {
	counts := map[uint64]int{}
	last := uint64(0)
	for _, t := range storetest.List[*api.Task](w.t, w.s, store.ByService(service)) {
		if taskstate.Live(t) && t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING {
			counts[t.GetSpecVersion()]++
			last = max(last, t.GetSpecVersion())
		}
	}
	var texts []string
	for version := range last + 1 {
		if counts[version] > 0 {
			texts = append(texts, fmt.Sprintf("%dx%d", counts[version], version))
		}
	}
	return strings.Join(texts, " ")
}

// rollBack goes back to the previous spec, as a user does.
func rollBack(s *api.Service) {
	s.Spec, s.PreviousSpec = s.GetPreviousSpec(), s.GetSpec()
	s.RestoredVersion, s.PreviousSpecVersion = s.GetPreviousSpecVersion(), s.GetSpecVersion()
	s.SpecVersion++
	resume(s)
	s.UpdateStatus.State = api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED
}

// updating is a world in which a service of five replicas runs, updated by twos and rolled back by threes, with 2 s between.
func updating(t *testing.T, change func(*api.UpdateConfig)) *world {
	t.Helper()
	w := newWorld(t, t.Fatalf, false)
	t.Cleanup(startLoops(t, w.s))
	s := simService("s", 5, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 2)
	s.Spec.Rollback.Parallelism, s.Spec.Rollback.Delay = 3, durationpb.New(2*time.Second)
	change(s.Spec.Update)
	storetest.Create(t, w.s, simNode("n1"), s)
	w.start()
	if got := w.versions("s"); got != "5x1" {
		t.Fatalf("at first %s run", got)
	}
	return w
}

// steps returns which tasks run, as long as that changes.
func (w *world) steps() (steps []string) {
	for range 30 {
		w.start()
		if now := w.versions("s"); len(steps) == 0 || steps[len(steps)-1] != now {
			steps = append(steps, now)
		}
		time.Sleep(time.Second)
	}
	return steps
}

func (w *world) wantUpdate(state api.UpdateState, message string) {
	w.t.Helper()
	got := storetest.Get[*api.Service](w.t, w.s, "s").GetUpdateStatus()
	if got.GetState() != state || !strings.Contains(got.GetMessage(), message) {
		w.t.Errorf("the update is %v, want %v: %s", got, state, message)
	}
}

// TestLoops_UpdatesGoInBatches: by as many at once as the service says, and back likewise.
func TestLoops_UpdatesGoInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := updating(t, func(*api.UpdateConfig) {})
		edit(w, "s", func(s *api.Service) { changeSpec(s, api.FailureAction_FAILURE_ACTION_PAUSE) })
		if got, want := w.steps(), []string{"3x1 2x2", "1x1 4x2", "5x2"}; !slices.Equal(got, want) {
			t.Errorf("the update went %q, want %q", got, want)
		}
		edit(w, "s", rollBack)
		if got, want := w.steps(), []string{"2x2 3x3", "5x3"}; !slices.Equal(got, want) {
			t.Errorf("the rollback went %q, want %q", got, want)
		}
		w.wantUpdate(api.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED, "")
	})
}

// TestLoops_UpdatesAreSuperseded half-way: the last spec is there in the end, and no slot has two tasks that run meanwhile, which the world
// checks; two under start-first.
func TestLoops_UpdatesAreSuperseded(t *testing.T) {
	for _, order := range []api.UpdateOrder{api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, api.UpdateOrder_UPDATE_ORDER_START_FIRST} {
		t.Run(order.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := updating(t, func(c *api.UpdateConfig) { c.Order = order })
				w.startFirst = order == api.UpdateOrder_UPDATE_ORDER_START_FIRST
				newSpec := func() {
					edit(w, "s", func(s *api.Service) { changeSpec(s, api.FailureAction_FAILURE_ACTION_PAUSE) })
				}
				newSpec()
				w.start()
				if got := w.versions("s"); got != "3x1 2x2" {
					t.Fatalf("half-way, %s run", got)
				}
				newSpec()
				synctest.Wait() // the next one comes before anything runs
				newSpec()
				if steps := w.steps(); steps[len(steps)-1] != "5x4" {
					t.Errorf("then it went %q", steps)
				}
				w.wantUpdate(api.UpdateState_UPDATE_STATE_COMPLETED, "")
			})
		})
	}
}

// TestLoops_UpdatesThatFail: of five tasks one at a time, none of the new spec can be started.
func TestLoops_UpdatesThatFail(t *testing.T) {
	fail := func(t *testing.T, action api.FailureAction) *world {
		w := updating(t, func(c *api.UpdateConfig) { c.Parallelism, c.MaxFailureRatio = 1, 0.25 })
		w.refuse = func(t *api.Task) bool { return t.GetSpecVersion() == 2 }
		edit(w, "s", func(s *api.Service) { changeSpec(s, action) })
		return w
	}
	t.Run("it is paused when too many failed, and goes back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := fail(t, api.FailureAction_FAILURE_ACTION_PAUSE)
			if got, want := w.steps(), []string{"4x1", "3x1"}; !slices.Equal(got, want) {
				t.Errorf("it went %q, want %q", got, want)
			}
			w.wantUpdate(api.UpdateState_UPDATE_STATE_PAUSED, "due to failure")
			edit(w, "s", rollBack)
			if steps := w.steps(); steps[len(steps)-1] != "5x3" {
				t.Errorf("the rollback went %q", steps)
			}
			w.wantUpdate(api.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED, "")
		})
	})
	t.Run("it goes on in spite of that", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := fail(t, api.FailureAction_FAILURE_ACTION_CONTINUE)
			if got, want := w.steps(), []string{"4x1", "3x1", "2x1", "1x1", ""}; !slices.Equal(got, want) {
				t.Errorf("it went %q, want %q", got, want)
			}
			w.refuse = nil
			if steps := w.steps(); steps[len(steps)-1] != "5x2" {
				t.Errorf("then it went %q", steps)
			}
			w.wantUpdate(api.UpdateState_UPDATE_STATE_COMPLETED, "")
		})
	})
	t.Run("it is rolled back", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := fail(t, api.FailureAction_FAILURE_ACTION_ROLLBACK)
			if steps := w.steps(); steps[len(steps)-1] != "5x3" {
				t.Errorf("it went %q", steps)
			}
			w.wantUpdate(api.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED, "")
		})
	})
}

// TestLoops_UpdatesEndAtTheirDeadline: no node takes the tasks of the new spec. Swarm waits for one for ever.
func TestLoops_UpdatesEndAtTheirDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := updating(t, func(c *api.UpdateConfig) { c.Deadline = durationpb.New(5 * time.Minute) })
		edit(w, "s", func(s *api.Service) {
			changeSpec(s, api.FailureAction_FAILURE_ACTION_PAUSE)
			s.Spec.Task.Placement = &api.Placement{Constraints: []string{"node.labels.moon==yes"}}
		})
		w.start()
		time.Sleep(5*time.Minute - time.Second)
		w.wantUpdate(api.UpdateState_UPDATE_STATE_UPDATING, "")
		time.Sleep(2 * time.Second)
		w.start()
		w.wantUpdate(api.UpdateState_UPDATE_STATE_PAUSED, "no suitable node (scheduling constraints not satisfied on 1 node)")
		if got := w.versions("s"); got != "3x1" {
			t.Errorf("%s run, want three of before", got)
		}
	})
}
