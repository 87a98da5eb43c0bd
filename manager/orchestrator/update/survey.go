package update

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/taskstate"
)

// progress is how far an update is.
type progress struct {
	policy
	service *api.Service
	slots   map[uint64][]*api.Task // all tasks, by slot
	total   int                    // slots that count
	dirty   []uint64               // in the order in which they are replaced
	moving  int
	cooling int // settled, or failed, within the delay
	watched int // settled within the monitoring time
	failed  []failure
	wake    time.Time // when the first slot has another place although nothing changed
	// outdated tells old tasks to stop beside which a new one runs.
	outdated []orchestrator.Effect
}

// failure is why a slot is not what the update wants.
type failure struct {
	task *api.Task
	at   time.Time
	late bool // the task did not end, but is not ready within the deadline
	// before is the task of the slot that a late one waits for, because it was told to stop and did not yet, or nil.
	before *api.Task
}

func survey(now time.Time, v orchestrator.View) *progress {
	p := &progress{policy: policyOf(v.Service), service: v.Service, slots: taskstate.Slots(v.Tasks)}
	for _, slot := range slices.Sorted(maps.Keys(p.slots)) {
		tasks := slices.DeleteFunc(slices.Clone(p.slots[slot]), func(t *api.Task) bool { return !taskstate.Kept(t) })
		if len(tasks) == 0 || v.Away(tasks) {
			continue
		}
		p.total++
		p.place(now, slot, tasks)
	}
	// Slots that do no work lose nothing: they go first.
	slices.SortStableFunc(p.dirty, func(a, b uint64) int { return cmp.Compare(ready(p.slots[a]), ready(p.slots[b])) })
	return p
}

func ready(tasks []*api.Task) int {
	if slices.ContainsFunc(tasks, taskstate.Ready) {
		return 1
	}
	return 0
}

// place finds a slot's place in the update; tasks are those of it that count.
func (p *progress) place(now time.Time, slot uint64, tasks []*api.Task) {
	present := slices.DeleteFunc(slices.Clone(tasks), func(t *api.Task) bool { return t.GetSpecVersion() != p.service.GetSpecVersion() })
	var current *api.Task // the live one, or nil
	for _, t := range present {
		if taskstate.Live(t) && (current == nil || taskstate.Ready(t)) {
			current = t
		}
	}
	failed, isFailed := p.failure(now, present, current)
	if i := slices.IndexFunc(tasks, func(t *api.Task) bool { return taskstate.MayOverlap(t, false) }); i >= 0 && failed.late {
		failed.before = tasks[i]
	}
	switch {
	case len(present) == 0:
		p.dirty = append(p.dirty, slot)
	case isFailed:
		p.failed = append(p.failed, failed)
		p.cooling += p.until(now, failed.at.Add(p.delay))
	case current == nil: // it ended when it was done, or had run for long enough, and nothing follows it
	case taskstate.Ready(current):
		since := taskstate.ReadySince(current)
		p.cooling += p.until(now, since.Add(p.delay))
		p.watched += p.until(now, since.Add(p.monitor))
	default:
		p.moving++
		if p.deadline > 0 {
			p.until(now, p.begun(current).Add(p.deadline))
		}
	}
	if current != nil && taskstate.Ready(current) {
		p.retire(tasks)
	}
}

// until returns 1 and wakes the core then, if the time is still to come.
func (p *progress) until(now, at time.Time) int {
	if !at.After(now) {
		return 0
	}
	if p.wake.IsZero() || at.Before(p.wake) {
		p.wake = at
	}
	return 1
}

// retire tells the tasks of other specs to stop, in a slot in which one of the present spec is ready.
func (p *progress) retire(tasks []*api.Task) {
	var e orchestrator.Effect
	for _, t := range tasks {
		if taskstate.Live(t) && t.GetSpecVersion() != p.service.GetSpecVersion() {
			e.Desired = append(e.Desired, orchestrator.Desire{TaskID: t.GetId(), State: api.TaskState_TASK_STATE_SHUTDOWN})
		}
	}
	if len(e.Desired) > 0 {
		p.outdated = append(p.outdated, e)
	}
}

// failure returns how a slot failed: its first task of the present spec that ended too early, or its live one that takes too long.
func (p *progress) failure(now time.Time, present []*api.Task, current *api.Task) (failure, bool) {
	var first failure
	for _, t := range present {
		if at := endedAt(t); p.early(t) && (first.task == nil || at.Before(first.at)) {
			first = failure{task: t, at: at}
		}
	}
	if first.task != nil {
		return first, true
	}
	if current == nil || taskstate.Ready(current) || taskstate.Ended(current) || p.deadline <= 0 {
		return failure{}, false
	}
	at := p.begun(current).Add(p.deadline)
	return failure{task: current, at: at, late: true}, !at.After(now)
}

// early reports whether a task ended by itself before it had been ready for the monitoring time. One that is not to go on for ever may
// end well at any time.
func (p *progress) early(t *api.Task) bool {
	if !taskstate.EndedItself(t) || !endedAt(t).After(p.countsFrom()) {
		return false
	}
	condition := t.GetSpec().GetRestart().GetCondition()
	endless := condition != api.RestartCondition_RESTART_CONDITION_NONE && condition != api.RestartCondition_RESTART_CONDITION_ON_FAILURE
	if t.GetStatus().GetState() == api.TaskState_TASK_STATE_COMPLETE && !endless {
		return false
	}
	began, was := taskstate.WasReady(t)
	return !was || endedAt(t).Sub(began) < p.monitor
}

// countsFrom is when the update was started or resumed.
func (p *progress) countsFrom() time.Time {
	if from := p.service.GetUpdateStatus().GetCountsFrom(); from != nil {
		return from.AsTime()
	}
	return time.Time{}
}

// begun is when the deadline of a task begins: anew, when it is ready no more.
func (p *progress) begun(t *api.Task) time.Time {
	begun := t.GetMeta().GetCreatedAt().AsTime()
	if from := p.countsFrom(); from.After(begun) {
		begun = from
	}
	if lost := t.GetStatus().GetReadiness().GetLostAt(); lost != nil && lost.AsTime().After(begun) {
		begun = lost.AsTime()
	}
	return begun
}

// endedAt is when a task ended. A leader of an older version did not note it.
func endedAt(t *api.Task) time.Time {
	if at := t.GetStatus().GetEndedAt(); at != nil {
		return at.AsTime()
	}
	return t.GetStatus().GetTimestamp().AsTime()
}

// budget is the number of slots that may be replaced now.
func (p *progress) budget() int {
	parallelism := p.parallelism
	if parallelism == 0 || parallelism > uint64(len(p.slots)) {
		parallelism = uint64(len(p.slots))
	}
	return max(int(parallelism)-p.moving-p.cooling, 0)
}
