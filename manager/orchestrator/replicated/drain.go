package replicated

import (
	"slices"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/taskstate"
)

// evacuation is which tasks leave drained nodes now.
type evacuation struct {
	now   time.Time
	v     orchestrator.View
	slots map[uint64]bool // whose running tasks leave
	// candidates are the slots with tasks that may leave, in order, and beside those of them where another task is to run first.
	candidates []uint64
	beside     map[uint64]bool
	full       bool      // some of them have to wait
	busy       uint64    // slots that move
	free       time.Time // when one of them moves no more although nothing changed
	ends       time.Time // when the first drain is over
	effects    []orchestrator.Effect
}

// stays reports whether a task goes on for now although its node is drained: it runs, and it is not its slot's turn.
func (e *evacuation) stays(t *api.Task) bool {
	return !e.v.Drained(t) || t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING && !e.slots[t.GetSlot()] && !e.over(t)
}

// over reports whether the drain of a task's node takes no longer: the task leaves, whatever the update config says.
func (e *evacuation) over(t *api.Task) bool {
	ends := e.v.DrainEnds(t)
	return !ends.IsZero() && !ends.After(e.now)
}

// evacuate chooses the slots whose running tasks leave drained nodes: no more at once than are replaced at once by an update, less those
// that moved and are not ready again yet, within the update's deadline, or have run for less than its delay.
func evacuate(now time.Time, v orchestrator.View, all map[uint64][]*api.Task, kept []uint64) *evacuation {
	e := &evacuation{now: now, v: v, slots: map[uint64]bool{}, beside: map[uint64]bool{}}
	for _, slot := range kept {
		e.place(slot, all[slot])
	}
	parallelism := uint64(1)
	if config := v.Service.GetSpec().GetUpdate(); config != nil {
		parallelism = config.GetParallelism()
	}
	room := uint64(len(e.candidates))
	if parallelism > 0 {
		room = min(room, parallelism-min(e.busy, parallelism))
	}
	e.full = int(room) < len(e.candidates)
	for _, slot := range e.candidates[:room] {
		if e.beside[slot] {
			e.effects = append(e.effects, orchestrator.Effect{Create: v.Replacement(slot, all[slot], nil)})
		} else {
			e.slots[slot] = true
		}
	}
	return e
}

// wake is when others may leave, or must.
func (e *evacuation) wake() time.Time {
	if !e.full {
		return e.ends
	}
	return earlier(e.free, e.ends)
}

// earlier returns the earlier one of two times, where zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// place finds what a slot has to do with the drain; tasks are all of it.
func (e *evacuation) place(slot uint64, tasks []*api.Task) {
	var leaving []*api.Task
	for _, t := range tasks {
		if e.leaves(t) {
			leaving = append(leaving, t)
			e.ends = earlier(e.ends, e.v.DrainEnds(t))
		}
	}
	if len(leaving) == 0 {
		e.settle(tasks)
		if until, moving := e.movingUntil(tasks); moving {
			e.moves(until)
		}
		return
	}
	if !e.startsFirst(slot, tasks) {
		e.candidates = append(e.candidates, slot)
		return
	}
	e.placeBeside(slot, tasks, leaving)
}

// leaves reports whether a task runs on a drained node, and may for now.
func (e *evacuation) leaves(t *api.Task) bool {
	return taskstate.Running(t) && e.v.Drained(t) && !e.v.Lost(t) && !e.over(t)
}

// moves counts a slot as one that moves until a time; zero is until something changes.
func (e *evacuation) moves(until time.Time) {
	if until.IsZero() || until.After(e.now) {
		e.busy++
		e.free = earlier(e.free, until)
	}
}

// movingUntil reports whether a slot's newest task took the place of one on a drained node, and how long the slot counts as one that moves:
// zero is until its task is ready.
func (e *evacuation) movingUntil(tasks []*api.Task) (time.Time, bool) {
	if len(tasks) < 2 {
		return time.Time{}, false
	}
	ordered := slices.SortedFunc(slices.Values(tasks), taskstate.Compare)
	newest, before := ordered[len(ordered)-1], ordered[len(ordered)-2]
	if !taskstate.Live(newest) || taskstate.Ended(newest) || taskstate.EndedItself(before) || !e.v.Drained(before) {
		return time.Time{}, false
	}
	if newest.GetVolumeNodeId() == before.GetNodeId() { // it waits for the end of the drain: others need not wait for it
		return time.Time{}, false
	}
	if taskstate.Ready(newest) {
		return e.cooled(newest), true
	}
	return e.deadline(newest), true
}

// cooled is when the delay after a task that is ready is over.
func (e *evacuation) cooled(t *api.Task) time.Time {
	return taskstate.ReadySince(t).Add(e.v.Service.GetSpec().GetUpdate().GetDelay().AsDuration())
}

// deadline is when a task that does not run holds up others no longer; zero is never.
func (e *evacuation) deadline(t *api.Task) time.Time {
	deadline := e.v.Service.GetSpec().GetUpdate().GetDeadline().AsDuration()
	if deadline <= 0 {
		return time.Time{}
	}
	return t.GetMeta().GetCreatedAt().AsTime().Add(deadline)
}
