package reaper

import (
	"slices"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/taskstate"
)

// orphanAfter is how long a node may be down before its tasks are given up, as Swarm does: longer than most repairs.
const orphanAfter = 24 * time.Hour

// New returns the loop; it runs on the leader only.
func New(cfg orchestrator.Config) (*orchestrator.Loop, error) {
	return orchestrator.New("reaper", Step, cfg, orchestrator.BySlot())
}

// Step decides about one slot.
func Step(now time.Time, v orchestrator.View) ([]orchestrator.Effect, time.Time) {
	var effects []orchestrator.Effect
	var wake time.Time
	var history []*api.Task
	live := false // whether the newest kept task is live
	for _, t := range slices.SortedFunc(slices.Values(v.Tasks), taskstate.Compare) {
		if taskstate.Kept(t) {
			live = taskstate.Live(t)
		}
		switch {
		case taskstate.Live(t) && !taskstate.HoldsNode(t):
			// It waits for a node, or restart is about to decide on it.
		case !taskstate.HoldsNode(t) && (!taskstate.Kept(t) || !taskstate.Ended(t)):
			effects = append(effects, orchestrator.Effect{Delete: t.GetId()})
		case taskstate.HoldsNode(t):
			at, ok := orphanedAt(v, t)
			ok = ok && !v.Awaited(t, v.Tasks)
			if ok && !at.After(now) {
				effects = append(effects, orchestrator.Effect{Orphan: t.GetId()})
			} else if ok && (wake.IsZero() || at.Before(wake)) {
				wake = at
			}
		case taskstate.Job(v.Service.GetSpec()) && taskstate.Done(v.Service, []*api.Task{t}):
			// It says that this slot of the job needs no task.
		default:
			history = append(history, t)
		}
	}
	return append(effects, trim(v, history, live)...), wake
}

// orphanedAt returns when a task that holds its node is given up, or false while its node lives.
func orphanedAt(v orchestrator.View, t *api.Task) (time.Time, bool) {
	switch {
	case v.Gone(t):
		return time.Time{}, true
	case v.Lost(t):
		return v.Node(t.GetNodeId()).GetStatus().GetChangedAt().AsTime().Add(orphanAfter), true
	default:
		return time.Time{}, false
	}
}

// updating reports whether an update of the service is under way, which needs to know how tasks ended.
func updating(s *api.Service) bool {
	switch s.GetUpdateStatus().GetState() {
	case api.UpdateState_UPDATE_STATE_UPDATING, api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED:
		return true
	}
	return false
}

// leaves reports whether a task is to leave a drained node. How those ended that were to run in its place says whether there is to be another.
func leaves(v orchestrator.View, t *api.Task) bool { return taskstate.Live(t) && v.Drained(t) }

// trim deletes the oldest tasks of a slot's history, which is ordered from the oldest.
func trim(v orchestrator.View, history []*api.Task, live bool) []orchestrator.Effect {
	if v.HistoryLimit < 0 || len(history) == 0 {
		return nil
	}
	keep := uint64(v.HistoryLimit)
	newest := history[len(history)-1]
	if attempts := newest.GetSpec().GetRestart().GetMaxAttempts(); attempts > 0 {
		keep = max(keep, attempts+1)
	}
	if !live || updating(v.Service) || slices.ContainsFunc(v.Tasks, func(t *api.Task) bool { return leaves(v, t) }) {
		keep = max(keep, 1)
	}
	if uint64(len(history)) <= keep {
		return nil
	}
	var effects []orchestrator.Effect
	for _, t := range history[:uint64(len(history))-keep] {
		effects = append(effects, orchestrator.Effect{Delete: t.GetId()})
	}
	return effects
}
