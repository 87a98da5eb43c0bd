package update

import (
	"slices"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/taskstate"
)

// New returns the loop; it runs on the leader only.
func New(cfg orchestrator.Config) (*orchestrator.Loop, error) {
	only := func(s *api.Service) bool { return s != nil && !taskstate.Job(s.GetSpec()) }
	return orchestrator.New("update", Step, cfg, orchestrator.Only(only), orchestrator.Heeds(heeds))
}

// heeds reports whether Step may decide otherwise because of a change of a task, whose slot v shows: only who counts how far an update is looks
// at how tasks do, and otherwise there is something to do only where one of another spec is to run.
func heeds(v orchestrator.View, _, _ *api.Task) bool {
	switch v.Service.GetUpdateStatus().GetState() {
	case api.UpdateState_UPDATE_STATE_UPDATING, api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED:
		return true
	}
	present, kept := false, false
	for _, t := range v.Tasks {
		same := t.GetSpecVersion() == v.Service.GetSpecVersion()
		if taskstate.Live(t) && !same {
			return true
		}
		present = present || same && taskstate.Kept(t)
		kept = kept || taskstate.Kept(t)
	}
	return kept && !present
}

// Step decides about all slots of one service.
func Step(now time.Time, v orchestrator.View) ([]orchestrator.Effect, time.Time) {
	if v.Service == nil || taskstate.Job(v.Service.GetSpec()) {
		return nil, time.Time{}
	}
	if stay := adopt(v); len(stay) > 0 {
		return stay, time.Time{} // first of all: an adopted task is none to replace
	}
	p := survey(now, v)
	effects := slices.Clone(p.outdated)
	switch v.Service.GetUpdateStatus().GetState() {
	case api.UpdateState_UPDATE_STATE_PAUSED, api.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED:
		return effects, time.Time{}
	case api.UpdateState_UPDATE_STATE_UPDATING, api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED:
		if stop, ok := p.stop(now); ok {
			return append(effects, stop), time.Time{}
		}
		if len(p.dirty)+p.moving+p.watched == 0 {
			return append(effects, orchestrator.Effect{Status: p.completed(now)}), time.Time{}
		}
	default:
		if len(p.dirty) == 0 {
			return effects, time.Time{}
		}
		effects = append(effects, orchestrator.Effect{Status: started(now)})
	}
	for _, slot := range p.dirty[:min(p.budget(), len(p.dirty))] {
		effects = append(effects, replace(v, slot, p.slots[slot]))
	}
	return effects, p.wake
}

// adopt lets the tasks of the spec that a rollback restored stay: they are what the present spec would make anew.
func adopt(v orchestrator.View) (effects []orchestrator.Effect) {
	restored := v.Service.GetRestoredVersion()
	if restored == 0 {
		return nil
	}
	for _, t := range v.Tasks {
		if taskstate.Live(t) && t.GetSpecVersion() == restored {
			effects = append(effects, orchestrator.Effect{Adopt: t.GetId()})
		}
	}
	return effects
}

// replace makes a slot's task with the present spec.
func replace(v orchestrator.View, slot uint64, tasks []*api.Task) orchestrator.Effect {
	var e orchestrator.Effect
	var stop []*api.Task
	beside := predecessor(v.Service, tasks)
	for _, t := range tasks {
		if !taskstate.Live(t) || t == beside {
			continue
		}
		stop = append(stop, t)
		e.Desired = append(e.Desired, orchestrator.Desire{TaskID: t.GetId(), State: api.TaskState_TASK_STATE_SHUTDOWN})
	}
	e.Create = v.Replacement(slot, tasks, stop)
	return e
}

// predecessor returns the task that goes on while the new one starts, or nil: one, even when the update before was to end
// with two of them (I5). It is one that does the work, if there is one.
func predecessor(s *api.Service, tasks []*api.Task) *api.Task {
	if !policyOf(s).startsFirst(s) {
		return nil
	}
	var best *api.Task
	for _, t := range tasks {
		switch {
		case !taskstate.Running(t):
		case best == nil, taskstate.Ready(t) && !taskstate.Ready(best):
			best = t
		case taskstate.Ready(t) == taskstate.Ready(best) && taskstate.Compare(t, best) > 0:
			best = t
		}
	}
	return best
}
