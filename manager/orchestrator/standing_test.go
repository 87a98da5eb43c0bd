package orchestrator_test

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

// runCore runs a loop with a core until the test ends.
func runCore(t *testing.T, s *store.Store, core orchestrator.Core, options ...orchestrator.Option) {
	t.Helper()
	l, err := orchestrator.New("test", core, orchestrator.Config{Store: s}, options...)
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { stopped <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// creations are effects that make tasks in the slots from 1 on.
func creations(slots uint64, stands bool) (effects []orchestrator.Effect) {
	for slot := range slots {
		effects = append(effects, orchestrator.Effect{
			Create: &orchestrator.Creation{Slot: slot + 1, Desired: api.TaskState_TASK_STATE_RUNNING}, Stands: stands,
		})
	}
	return effects
}

// slots returns the slots of all tasks, in order.
func slots(t *testing.T, s *store.Store) (numbers []uint64) {
	for _, task := range storetest.List[*api.Task](t, s) {
		numbers = append(numbers, task.GetSlot())
	}
	slices.Sort(numbers)
	return numbers
}

// TestLoop_DoesNotLookAgainForWhatStands: a look costs as much as the service has tasks, so one for each transaction would cost the square.
func TestLoop_DoesNotLookAgainForWhatStands(t *testing.T) {
	const wanted = 3000
	for stands, most := range map[bool]int{true: 2, false: 1000} { // one to see and write, one for the news
		synctest.Test(t, func(t *testing.T) {
			s, looks := storetest.New(t), 0
			runCore(t, s, func(_ time.Time, v orchestrator.View) ([]orchestrator.Effect, time.Time) {
				looks++
				if v.Service == nil || len(v.Tasks) == wanted {
					return nil, time.Time{}
				}
				return creations(wanted, stands)[len(v.Tasks):], time.Time{}
			})
			storetest.Create(t, s, simService("s", wanted, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
			synctest.Wait()
			if got := slots(t, s); len(got) != wanted || len(slices.Compact(got)) != wanted {
				t.Errorf("stands %v: %d tasks in %d slots, want %d", stands, len(got), len(slices.Compact(got)), wanted)
			}
			if looks > most || !stands && looks < 5 {
				t.Errorf("stands %v: the core was asked %d times", stands, looks)
			}
		})
	}
}

// TestLoop_LooksLateAtWhatItDoesNotHeed: the number of looks does not grow with that of changes which its core does not heed; but it looks.
func TestLoop_LooksLateAtWhatItDoesNotHeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.New(t)
		var looks atomic.Int64
		heeds := func(v orchestrator.View, old, now *api.Task) bool {
			if len(v.Tasks) != 1 || v.Tasks[0].GetId() != now.GetId() || old == nil && now.GetMeta() == nil {
				t.Errorf("a view of %d tasks for a change of %v to %v", len(v.Tasks), old, now)
			}
			return now.GetSlot() == 77
		}
		storetest.Create(t, s, simService("s", 3, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
		runCore(t, s, func(time.Time, orchestrator.View) ([]orchestrator.Effect, time.Time) {
			looks.Add(1)
			return nil, time.Time{}
		}, orchestrator.Heeds(heeds))
		synctest.Wait()
		looks.Store(0)
		for i := range 1000 {
			storetest.Create(t, s, &api.Task{Id: object.NewID(), ServiceId: "s", Slot: uint64(i + 100)})
			synctest.Wait()
		}
		if got := looks.Load(); got > 0 {
			t.Errorf("%d looks at once", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := looks.Load(); got != 1 {
			t.Errorf("%d looks after a minute, want one", got)
		}
		storetest.Create(t, s, &api.Task{Id: object.NewID(), ServiceId: "s", Slot: 77})
		synctest.Wait()
		if got := looks.Load(); got != 2 {
			t.Errorf("%d looks in all after a change that it heeds, want 2", got)
		}
	})
}

// TestLoop_LooksTheLaterTheLongerItTakes: what a core does not heed costs a fiftieth of a processor, but is seen within half a minute.
func TestLoop_LooksTheLaterTheLongerItTakes(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		time.Millisecond: 5 * time.Second, 400 * time.Millisecond: 20 * time.Second, time.Minute: 30 * time.Second,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := storetest.New(t)
			var began []time.Time
			ended := make(chan time.Time, 10)
			runCore(t, s, func(_ time.Time, v orchestrator.View) ([]orchestrator.Effect, time.Time) {
				if v.ServiceID == "s" {
					began = append(began, time.Now())
					time.Sleep(took)
					ended <- time.Now()
				}
				return nil, time.Time{}
			}, orchestrator.Heeds(func(orchestrator.View, *api.Task, *api.Task) bool { return false }))
			storetest.Create(t, s, simService("s", 3, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
			storetest.Create(t, s, simService("small", 3, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
			first := <-ended
			for len(ended) == 0 {
				storetest.Create(t, s, &api.Task{Id: object.NewID(), ServiceId: "s", Slot: 1})
				storetest.Create(t, s, &api.Task{Id: object.NewID(), ServiceId: "small", Slot: 1})
				time.Sleep(50 * time.Millisecond)
			}
			<-ended
			if got := began[1].Sub(first); got < want || got > want+2*time.Second { // the loop rests after a look, a second at most
				t.Errorf("a look of %s was followed by one after %s, want %s", took, got, want)
			}
		})
	}
}

// TestLoop_GivesASlotNoSecondTask: one that got a task after the core looked stays as it is.
func TestLoop_GivesASlotNoSecondTask(t *testing.T) {
	const wanted = 3000
	synctest.Test(t, func(t *testing.T) {
		s, looks := storetest.New(t), 0
		runCore(t, s, func(_ time.Time, v orchestrator.View) ([]orchestrator.Effect, time.Time) {
			if v.Service == nil || len(v.Tasks) > 0 {
				return nil, time.Time{}
			}
			switch looks++; looks {
			case 1:
				storetest.Create(t, s, simNode("n1")) // so that the transaction looks again
			case 2: // whose effects are written
				storetest.Create(t, s, &api.Task{Id: object.NewID(), ServiceId: "s", Slot: wanted})
			}
			return creations(wanted, true), time.Time{}
		})
		storetest.Create(t, s, simService("s", wanted, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
		synctest.Wait()
		if got := slots(t, s); len(got) != wanted || len(slices.Compact(got)) != wanted {
			t.Errorf("%d tasks in %d slots, want %d", len(got), len(slices.Compact(got)), wanted)
		}
	})
}

// TestLoop_EndsWithTheServiceThatItSaw: what a core wanted for a service that changed meanwhile is not done any more.
func TestLoop_EndsWithTheServiceThatItSaw(t *testing.T) {
	const tasks = 1200
	synctest.Test(t, func(t *testing.T) {
		s, looks := storetest.New(t), 0
		storetest.Create(t, s, simService("s", tasks, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
		for slot := range uint64(tasks) {
			storetest.Create(t, s, &api.Task{Id: object.NewID(), ServiceId: "s", Slot: slot + 1, DesiredState: api.TaskState_TASK_STATE_RUNNING})
		}
		runCore(t, s, func(_ time.Time, v orchestrator.View) ([]orchestrator.Effect, time.Time) {
			if v.Service.GetSpecVersion() > 1 {
				return nil, time.Time{}
			}
			switch looks++; looks {
			case 1:
				storetest.Create(t, s, simNode("n1")) // so that the transaction looks again
			case 2:
				if err := s.Update(context.Background(), "", func(tx store.Tx) error {
					return edited(tx, "s", func(s *api.Service) { s.SpecVersion++ })
				}); err != nil {
					t.Error(err)
				}
			}
			return orchestrator.Stand(orchestrator.Remove(v.Tasks)), time.Time{}
		})
		synctest.Wait()
		removed := 0
		for _, task := range storetest.List[*api.Task](t, s) {
			if task.GetDesiredState() == api.TaskState_TASK_STATE_REMOVE {
				removed++
			}
		}
		if removed == 0 || removed > tasks/2 { // the transaction of the look is as right as its snapshot
			t.Errorf("%d of %d tasks are to be removed", removed, tasks)
		}
	})
}

// TestLoop_RestsNoLongerThanASecond: what happens after a long look, such as the end of a node, does not wait for long, and not at all when
// the loop has rested.
func TestLoop_RestsNoLongerThanASecond(t *testing.T) {
	for idle, most := range map[time.Duration]time.Duration{0: time.Second, time.Second: 0} {
		synctest.Test(t, func(t *testing.T) {
			s := storetest.New(t)
			var last time.Time
			runCore(t, s, func(_ time.Time, v orchestrator.View) ([]orchestrator.Effect, time.Time) {
				last = time.Now()
				if v.Service.GetSpecVersion() == 1 {
					time.Sleep(10 * time.Second)
				}
				return nil, time.Time{}
			})
			storetest.Create(t, s, simService("s", 1, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
			time.Sleep(10*time.Second + time.Millisecond + idle)
			changed := time.Now()
			if err := s.Update(t.Context(), "", func(tx store.Tx) error {
				return edited(tx, "s", func(s *api.Service) { s.SpecVersion++ })
			}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			if waited := last.Sub(changed); waited < 0 || waited > most {
				t.Errorf("idle for %v: looked %v after the change", idle, waited)
			}
		})
	}
}
