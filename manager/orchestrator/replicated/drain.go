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
	v     orchestrator.View
	slots map[uint64]bool // whose running tasks leave
	wake  time.Time       // when others may
}

// stays reports whether a task goes on for now although its node is drained: it runs, and it is not its slot's turn.
func (e evacuation) stays(t *api.Task) bool {
	return !e.v.Drained(t) || t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING && !e.slots[t.GetSlot()]
}

// evacuate chooses the slots whose running tasks leave drained nodes: no more at once than are replaced at once by an update, less those
// that moved and are not ready again yet, within the update's deadline, or have run for less than its delay.
func evacuate(now time.Time, v orchestrator.View, all map[uint64][]*api.Task, kept []uint64) evacuation {
	e := evacuation{v: v, slots: map[uint64]bool{}}
	parallelism := uint64(1)
	if config := v.Service.GetSpec().GetUpdate(); config != nil {
		parallelism = config.GetParallelism()
	}
	var candidates []uint64
	busy := uint64(0)
	for _, slot := range kept {
		until, moving := e.movingUntil(all[slot])
		switch {
		case slices.ContainsFunc(all[slot], e.leaves):
			candidates = append(candidates, slot)
		case moving && (until.IsZero() || until.After(now)):
			busy++
			if e.wake.IsZero() || !until.IsZero() && until.Before(e.wake) {
				e.wake = until
			}
		}
	}
	room := uint64(len(candidates))
	if parallelism > 0 {
		room = min(room, parallelism-min(busy, parallelism))
	}
	for _, slot := range candidates[:room] {
		e.slots[slot] = true
	}
	if int(room) == len(candidates) {
		e.wake = time.Time{}
	}
	return e
}

// leaves reports whether a task runs on a drained node.
func (e evacuation) leaves(t *api.Task) bool {
	return taskstate.Running(t) && e.v.Drained(t) && !e.v.Lost(t)
}

// movingUntil reports whether a slot's newest task took the place of one on a drained node, and how long the slot counts as one that moves:
// zero is until its task is ready.
func (e evacuation) movingUntil(tasks []*api.Task) (time.Time, bool) {
	ordered := slices.SortedFunc(slices.Values(tasks), taskstate.Compare)
	if len(ordered) < 2 {
		return time.Time{}, false
	}
	newest, before := ordered[len(ordered)-1], ordered[len(ordered)-2]
	if !taskstate.Live(newest) || taskstate.Ended(newest) || taskstate.EndedItself(before) || !e.v.Drained(before) {
		return time.Time{}, false
	}
	if newest.GetVolumeNodeId() == before.GetNodeId() { // it waits for the end of the drain: others need not wait for it
		return time.Time{}, false
	}
	config := e.v.Service.GetSpec().GetUpdate()
	if taskstate.Ready(newest) {
		return taskstate.ReadySince(newest).Add(config.GetDelay().AsDuration()), true
	}
	deadline := config.GetDeadline().AsDuration()
	if deadline <= 0 {
		return time.Time{}, true
	}
	return newest.GetMeta().GetCreatedAt().AsTime().Add(deadline), true
}
