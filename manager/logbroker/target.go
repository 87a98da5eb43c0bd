package logbroker

import (
	"errors"
	"slices"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/lookup"
	"github.com/skep-io/skep/store"
)

// maxTasks bounds the tasks of one read, because each costs a stream. The newest are read.
const maxTasks = 512

// target is what a read is about: all tasks of a service, those of one of its slots, or one task.
type target struct {
	serviceID string // or empty
	slot      uint64 // of the service, or 0 for all
	taskID    string // or empty
}

// matches reports whether a task belongs to the target.
func (t target) matches(task *api.Task) bool {
	if t.taskID != "" {
		return task.GetId() == t.taskID
	}
	return task.GetServiceId() == t.serviceID && (t.slot == 0 || task.GetSlot() == t.slot)
}

// find resolves a service's id, name or id prefix, a task's id or id prefix, or a slot, such as web.1.
func find(tx store.ReadTx, key string) (target, error) {
	if key == "" {
		return target{}, fault.New(fault.Invalid, "the name or id of a service or task is missing")
	}
	service, err := lookup.One[*api.Service](tx, key)
	if fault.KindOf(err) != fault.NotFound {
		return target{serviceID: service.GetId()}, err
	}
	task, err := lookup.One[*api.Task](tx, key)
	if fault.KindOf(err) != fault.NotFound {
		return target{taskID: task.GetId()}, err
	}
	inSlot, err := lookup.InSlot(tx, key)
	if err != nil {
		return target{}, err
	}
	return target{serviceID: inSlot[0].GetServiceId(), slot: inSlot[0].GetSlot()}, nil
}

// tasks returns the tasks of a target that can have written something, the newest last, and how many older ones are left out.
func tasks(tx store.ReadTx, t target) (list []*api.Task, leftOut int, err error) {
	if t.taskID != "" {
		task, err := store.Get[*api.Task](tx, t.taskID)
		if errors.Is(err, store.ErrNotFound) {
			return nil, 0, nil
		}
		if err != nil || !hasLogs(task) {
			return nil, 0, err
		}
		return []*api.Task{task}, 0, nil
	}
	all, err := store.List[*api.Task](tx, store.ByService(t.serviceID))
	if err != nil {
		return nil, 0, err
	}
	list = slices.DeleteFunc(all, func(task *api.Task) bool { return !t.matches(task) || !hasLogs(task) })
	slices.SortStableFunc(list, func(a, b *api.Task) int {
		return a.GetMeta().GetCreatedAt().AsTime().Compare(b.GetMeta().GetCreatedAt().AsTime())
	})
	if leftOut = len(list) - maxTasks; leftOut <= 0 {
		return list, 0, nil
	}
	return list[leftOut:], leftOut, nil
}

// hasLogs reports whether a task's node may have lines of it: it has started there.
func hasLogs(task *api.Task) bool {
	return task.GetNodeId() != "" && task.GetStatus().GetState() >= api.TaskState_TASK_STATE_STARTING &&
		task.GetStatus().GetState() != api.TaskState_TASK_STATE_REJECTED
}
