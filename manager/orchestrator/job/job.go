package job

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/taskstate"
)

// New returns the loop; it runs on the leader only.
func New(cfg orchestrator.Config) (*orchestrator.Loop, error) {
	return orchestrator.New("job", Step, cfg, orchestrator.Only(func(s *api.Service) bool { return taskstate.Job(s.GetSpec()) }), orchestrator.EveryNode(func(s *api.Service) bool { return s.GetSpec().GetGlobalJob() != nil }))
}

// Step decides about all slots of one service.
func Step(_ time.Time, v orchestrator.View) ([]orchestrator.Effect, time.Time) {
	switch {
	case v.Service.GetSpec().GetReplicatedJob() != nil:
		return replicated(v), time.Time{}
	case v.Service.GetSpec().GetGlobalJob() != nil:
		return global(v), time.Time{}
	default:
		return nil, time.Time{}
	}
}

// place is where a slot is in the present iteration.
type place int

const (
	free place = iota
	failed
	running
	done
)

// slot is what a job's slot does.
type slot struct {
	number uint64
	tasks  []*api.Task
	place  place
	// busy says that a task runs in it, or may.
	busy bool
	// stop are live tasks of another iteration, or beside one that ended well.
	stop []*api.Task
}

func look(v orchestrator.View, number uint64, tasks []*api.Task) slot {
	s := slot{number: number, tasks: tasks, busy: v.Blocked(tasks)}
	finished := taskstate.Done(v.Service, tasks)
	for _, t := range tasks {
		present := t.GetSpecVersion() == v.Service.GetSpecVersion()
		switch {
		case !taskstate.Kept(t):
		case taskstate.Live(t) && (!present || finished && !taskstate.Ended(t)):
			s.stop = append(s.stop, t)
			s.busy = s.busy || taskstate.HoldsNode(t) && !v.Lost(t)
		case present && taskstate.Live(t):
			s.place = max(s.place, running)
		case present:
			s.place = max(s.place, failed)
		}
	}
	if finished {
		s.place = done
	}
	s.busy = s.busy || s.place == running
	return s
}

// halt tells what is to stop in the slot so.
func (s slot) halt() (e orchestrator.Effect) {
	for _, t := range s.stop {
		e.Desired = append(e.Desired, orchestrator.Desire{TaskID: t.GetId(), State: api.TaskState_TASK_STATE_SHUTDOWN})
	}
	return e
}

// keep returns what a slot that gets no task needs nevertheless.
func (s slot) keep() []orchestrator.Effect {
	if len(s.stop) == 0 {
		return nil
	}
	return []orchestrator.Effect{s.halt()}
}

// begin makes the slot's first task of the iteration.
func (s slot) begin(v orchestrator.View) orchestrator.Effect {
	e := s.halt()
	e.Create = v.Replacement(s.number, s.tasks, s.stop)
	return e
}

func replicated(v orchestrator.View) (effects []orchestrator.Effect) {
	spec := v.Service.GetSpec().GetReplicatedJob()
	all := taskstate.Slots(v.Tasks)
	slots := map[uint64]slot{}
	var used []slot
	busy, last := uint64(0), uint64(0)
	for _, number := range slices.Sorted(maps.Keys(all)) {
		s := look(v, number, all[number])
		slots[number], last = s, number
		if s.place != free {
			used = append(used, s)
		}
		if s.busy {
			busy++
		}
	}
	spared := map[uint64]bool{}
	for _, s := range excess(used, spec.GetTotalCompletions()) {
		effects = append(effects, orchestrator.Remove(s.tasks)...)
		spared[s.number] = true
	}
	missing := spec.GetTotalCompletions() - min(uint64(len(used)-len(spared)), spec.GetTotalCompletions())
	room := missing
	if most := spec.GetMaxConcurrent(); most > 0 {
		room = most - min(busy, most)
	}
	for number := uint64(1); number <= last || missing > 0 && room > 0; number++ {
		s := slots[number]
		s.number = number
		switch {
		case spared[number]:
		case s.place == running && len(s.stop) == 0:
			if lost, ok := v.Rescue(number, s.tasks, func(*api.Task) bool { return false }); ok {
				effects = append(effects, lost)
			}
		case s.place != free || missing == 0 || room == 0 && !s.busy:
			effects = append(effects, s.keep()...)
		default:
			if !s.busy {
				room--
			}
			missing--
			effects = append(effects, s.begin(v))
		}
	}
	return effects
}

// excess returns the used slots beyond the wanted number that can be spared.
func excess(used []slot, wanted uint64) []slot {
	spare := slices.DeleteFunc(slices.Clone(used), func(s slot) bool { return s.place == done })
	slices.SortFunc(spare, func(a, b slot) int {
		return cmp.Or(cmp.Compare(a.place, b.place), cmp.Compare(b.number, a.number))
	})
	over := len(used) - int(min(wanted, uint64(len(used))))
	return spare[:min(over, len(spare))]
}
