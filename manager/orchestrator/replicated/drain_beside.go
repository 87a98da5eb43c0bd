package replicated

import (
	"slices"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/taskstate"
)

// startsFirst reports whether the tasks of a slot leave drained nodes only once another one is ready. One that has to go where the volumes are
// could not run before.
func (e *evacuation) startsFirst(slot uint64, tasks []*api.Task) bool {
	return orchestrator.StartsFirst(e.v.Service, e.v.Service.GetSpec().GetUpdate().GetOrder()) && e.v.Replacement(slot, tasks, nil).VolumeNodeID == ""
}

// placeBeside finds what a slot has to do in which another task is to be ready before leaving, those on drained nodes, stop.
func (e *evacuation) placeBeside(slot uint64, tasks, leaving []*api.Task) {
	leaving = slices.SortedFunc(slices.Values(leaving), taskstate.Compare)
	newest := leaving[len(leaving)-1]
	next := e.next(tasks)
	switch {
	case taskstate.Ready(next) && !e.v.Lost(next) && !e.v.Unfit(next):
		e.slots[slot] = true
		e.moves(e.cooled(next))
	case next != nil:
		if !taskstate.Ended(next) && next.GetRestartCount() == 0 { // one that fails again and again holds up nobody
			e.moves(e.deadline(next))
		}
	case len(leaving) > 1: // I5: no third one
		e.stop(leaving[max(slices.IndexFunc(leaving, func(t *api.Task) bool { return !taskstate.Ready(t) }), 0)])
	case slices.ContainsFunc(tasks, e.isTold): // I5: nor while it may start; the next step makes one
	case newest.GetSpecVersion() != e.v.Service.GetSpecVersion() && !paused(e.v.Service) && !slices.ContainsFunc(tasks, e.isPresent):
		// The update makes its next task.
	case e.gaveUp(tasks, newest):
		// It stays until the drain is over: what would run in its place does not.
	default:
		e.candidates = append(e.candidates, slot)
		e.beside[slot] = true
	}
}

// next returns the newest live task of a slot that is not on a drained node, or nil; it may have ended, and restart not know yet.
func (e *evacuation) next(tasks []*api.Task) (next *api.Task) {
	for _, t := range tasks {
		if taskstate.Live(t) && !e.v.Drained(t) && (next == nil || taskstate.Compare(t, next) > 0) {
			next = t
		}
	}
	return next
}

// isTold reports whether a task that is not over yet is told to stop now, because its node is drained and it does not stay there.
func (e *evacuation) isTold(t *api.Task) bool {
	return taskstate.Live(t) && !taskstate.Ended(t) && e.v.Drained(t) && !e.leaves(t)
}

// isPresent reports whether a task is one of the service's present spec: the update replaces only slots that had none yet.
func (e *evacuation) isPresent(t *api.Task) bool {
	return taskstate.Kept(t) && t.GetSpecVersion() == e.v.Service.GetSpecVersion()
}

// paused reports whether the service's update makes no tasks for now.
func paused(s *api.Service) bool {
	state := s.GetUpdateStatus().GetState()
	return state == api.UpdateState_UPDATE_STATE_PAUSED || state == api.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED
}

// gaveUp reports whether in this drain a task that was to run in place of leaving ended, and restart left it at that.
func (e *evacuation) gaveUp(tasks []*api.Task, leaving *api.Task) bool {
	created := func(t *api.Task) time.Time { return t.GetMeta().GetCreatedAt().AsTime() }
	began := e.v.Node(leaving.GetNodeId()).GetStatus().GetDrainBeganAt()
	return slices.ContainsFunc(tasks, func(t *api.Task) bool {
		return e.isPresent(t) && taskstate.EndedItself(t) &&
			created(t).After(created(leaving)) && (began == nil || created(t).After(began.AsTime()))
	})
}

// settle leaves one task in a slot where two of one spec may go on, because the drain that had the other one made ended before it did: the
// one that is ready, or else runs, and of two of those the older.
func (e *evacuation) settle(tasks []*api.Task) {
	var good []*api.Task
	for _, t := range tasks {
		if taskstate.Live(t) && !taskstate.Ended(t) && !e.v.Drained(t) && !e.v.Lost(t) && !e.v.Unfit(t) {
			good = append(good, t)
		}
	}
	if len(good) < 2 {
		return
	}
	slices.SortFunc(good, taskstate.Compare)
	best := slices.IndexFunc(good, taskstate.Ready)
	if best < 0 {
		best = max(slices.IndexFunc(good, taskstate.Running), 0)
	}
	for i, t := range good {
		if i != best && t.GetSpecVersion() == good[best].GetSpecVersion() {
			e.stop(t)
		}
	}
}

// stop tells a task to stop.
func (e *evacuation) stop(t *api.Task) {
	e.effects = append(e.effects, orchestrator.Effect{Desired: []orchestrator.Desire{{TaskID: t.GetId(), State: api.TaskState_TASK_STATE_SHUTDOWN}}})
}
