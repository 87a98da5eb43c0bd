package restart

import (
	"slices"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/taskstate"
)

// New returns the loop; it runs on the leader only.
func New(cfg orchestrator.Config) (*orchestrator.Loop, error) {
	return orchestrator.New("restart", Step, cfg, orchestrator.BySlot())
}

// Step decides about one slot.
func Step(now time.Time, v orchestrator.View) ([]orchestrator.Effect, time.Time) {
	if v.Service == nil {
		return nil, time.Time{}
	}
	tasks := slices.SortedFunc(slices.Values(v.Tasks), taskstate.Compare)
	var effects []orchestrator.Effect
	var wake time.Time
	for i, t := range tasks {
		switch {
		case !taskstate.Live(t):
		case taskstate.Ended(t) && !endedWaiting(v, tasks, i):
			effects = append(effects, follow(now, v, tasks, i))
		case t.GetDesiredState() < api.TaskState_TASK_STATE_RUNNING:
			if needless(v, tasks) {
				continue // the job's loop stops it
			}
			at, ok := startAt(v, tasks, i)
			switch {
			case !ok:
			case at.After(now):
				if wake.IsZero() || at.Before(wake) {
					wake = at
				}
			case taskstate.Ended(t):
				effects = append(effects, follow(now, v, tasks, i))
			default:
				effects = append(effects, desire(t, api.TaskState_TASK_STATE_RUNNING))
			}
		}
	}
	return effects, wake
}

// endedWaiting reports whether tasks[i] ended by itself before it was to start: its node could not prepare it. What follows it is
// made when it would have started, or it would be tried again and again without any delay.
func endedWaiting(v orchestrator.View, tasks []*api.Task, i int) bool {
	t := tasks[i]
	return t.GetDesiredState() < api.TaskState_TASK_STATE_RUNNING && taskstate.EndedItself(t) &&
		!v.Lost(t) && !v.Drained(t) && !superseded(v, tasks, i) && !needless(v, tasks)
}

func desire(t *api.Task, state api.TaskState) orchestrator.Effect {
	return orchestrator.Effect{Desired: []orchestrator.Desire{{TaskID: t.GetId(), State: state}}}
}

// follow ends the live task tasks[i], which has stopped, and replaces it when the policy says so.
func follow(now time.Time, v orchestrator.View, tasks []*api.Task, i int) orchestrator.Effect {
	t := tasks[i]
	e := desire(t, api.TaskState_TASK_STATE_SHUTDOWN)
	if superseded(v, tasks, i) || !again(v, tasks, t) || exhausted(now, tasks, t) {
		return e
	}
	e.Create = v.Replacement(t.GetSlot(), tasks, nil)
	if v.Lost(t) || v.Drained(t) {
		return e
	}
	e.Create.RestartCount = countAfter(t)
	if baseDelay(t) > 0 {
		e.Create.Desired = api.TaskState_TASK_STATE_READY
	}
	return e
}

// superseded reports whether the slot has a live task of the same or a newer spec beside tasks[i], so that nothing is missing.
// Of two that ended at once, the newer one decides. An older one that only waits on a drained node for tasks[i] to run is none.
func superseded(v orchestrator.View, tasks []*api.Task, i int) bool {
	for j, other := range tasks {
		if j == i || !taskstate.Live(other) || other.GetSpecVersion() < tasks[i].GetSpecVersion() || j < i && taskstate.Running(other) && v.Drained(other) {
			continue
		}
		if !taskstate.Ended(other) || j > i {
			return true
		}
	}
	return false
}

// needless reports whether the slot is one of a job, and done: what was told to stop there may have ended well before it heard so.
func needless(v orchestrator.View, tasks []*api.Task) bool {
	return taskstate.Job(v.Service.GetSpec()) && taskstate.Done(v.Service, tasks)
}

// again reports whether the condition of the policy allows another try after t. A job's slot that is done needs none.
func again(v orchestrator.View, tasks []*api.Task, t *api.Task) bool {
	if needless(v, tasks) {
		return false
	}
	switch t.GetSpec().GetRestart().GetCondition() {
	case api.RestartCondition_RESTART_CONDITION_NONE:
		return false
	case api.RestartCondition_RESTART_CONDITION_ON_FAILURE:
		return t.GetStatus().GetState() != api.TaskState_TASK_STATE_COMPLETE
	default:
		return true
	}
}

// exhausted reports whether the slot used up the attempts that the policy of t allows within its window.
func exhausted(now time.Time, tasks []*api.Task, t *api.Task) bool {
	policy := t.GetSpec().GetRestart()
	if policy.GetMaxAttempts() == 0 {
		return false
	}
	attempts := uint64(0)
	for i, other := range tasks {
		if other.GetSpecVersion() != t.GetSpecVersion() || !isRestart(tasks, i) {
			continue
		}
		window := policy.GetWindow().AsDuration()
		if window <= 0 || other.GetMeta().GetCreatedAt().AsTime().Add(window).After(now) {
			attempts++
		}
	}
	return attempts >= policy.GetMaxAttempts()
}

// before returns the task that tasks[i] followed, or nil. One that still runs, as on a drained node until tasks[i] does, is none.
func before(tasks []*api.Task, i int) *api.Task {
	for _, t := range slices.Backward(tasks[:i]) {
		if !taskstate.Running(t) {
			return t
		}
	}
	return nil
}

// isRestart reports whether tasks[i] replaced a task of the same spec that ended by itself.
func isRestart(tasks []*api.Task, i int) bool {
	t := before(tasks, i)
	return t != nil && t.GetSpecVersion() == tasks[i].GetSpecVersion() && taskstate.Kept(t) && taskstate.EndedItself(t)
}

// startAt returns when the waiting task tasks[i] may start, or false while another one of the slot still stops.
func startAt(v orchestrator.View, tasks []*api.Task, i int) (time.Time, bool) {
	if v.Blocked(tasks) {
		return time.Time{}, false
	}
	created := tasks[i].GetMeta().GetCreatedAt().AsTime()
	switch {
	case !isRestart(tasks, i) && tasks[i].GetRestartCount() == 0:
		return time.Time{}, true
	case !isRestart(tasks, i): // what it follows is forgotten already
		return created.Add(delay(tasks[i], tasks[i])), true
	case v.Lost(before(tasks, i)), v.Drained(before(tasks, i)):
		return time.Time{}, true
	default:
		return created.Add(delay(before(tasks, i), tasks[i])), true
	}
}
