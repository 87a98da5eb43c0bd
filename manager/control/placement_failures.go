package control

import (
	"maps"
	"slices"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
)

// maxSlotFailures bounds how many slots one answer names.
const maxSlotFailures = 16

// failuresOf returns the slots that lack a running task because theirs ended by itself, and how many more were left out. tasks are those
// of one service.
func failuresOf(service *api.Service, tasks []*api.Task) (failures []*api.SlotFailure, leftOut uint32) {
	slots := taskstate.Slots(slices.DeleteFunc(slices.Clone(tasks), func(t *api.Task) bool { return !taskstate.Kept(t) }))
	for _, slot := range slices.Sorted(maps.Keys(slots)) {
		f := failureOf(service, slices.SortedFunc(slices.Values(slots[slot]), taskstate.Compare))
		switch {
		case f == nil:
		case len(failures) < maxSlotFailures:
			failures = append(failures, f)
		default:
			leftOut++
		}
	}
	return failures, leftOut
}

// failureOf returns nil for a slot, whose tasks are given from the oldest to the newest, that has what it needs or waits for a node.
func failureOf(service *api.Service, tasks []*api.Task) *api.SlotFailure {
	last := tasks[len(tasks)-1]
	givenUp := !taskstate.Live(last)
	if taskstate.Live(last) && !taskstate.Ended(last) {
		if last.GetDesiredState() >= api.TaskState_TASK_STATE_RUNNING || len(tasks) == 1 {
			return nil
		}
		last = tasks[len(tasks)-2] // its replacement waits
	}
	done := taskstate.Job(service.GetSpec()) && last.GetStatus().GetState() == api.TaskState_TASK_STATE_COMPLETE
	if !taskstate.EndedItself(last) || done {
		return nil
	}
	f := &api.SlotFailure{
		Slot: last.GetSlot(), TaskId: last.GetId(), NodeId: last.GetNodeId(), Error: last.GetStatus().GetErr(), GivenUp: givenUp,
	}
	for _, t := range tasks {
		if t.GetSpecVersion() == last.GetSpecVersion() && taskstate.EndedItself(t) {
			f.Ended++
		}
	}
	return f
}
