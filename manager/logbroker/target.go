package logbroker

import (
	"errors"
	"slices"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
)

// maxTasks bounds the tasks of one read, because each costs a stream. The newest are read.
const maxTasks = 512

// target is what a read is about: all tasks of a service, or one task.
type target struct {
	serviceID string // or empty
	taskID    string // or empty
}

// matches reports whether a task belongs to the target.
func (t target) matches(task *api.Task) bool {
	if t.taskID != "" {
		return task.GetId() == t.taskID
	}
	return task.GetServiceId() == t.serviceID
}

// find resolves a service's id, name or id prefix, or a task's id or id prefix.
func find(tx store.ReadTx, key string) (target, error) {
	if key == "" {
		return target{}, fault.New(fault.Invalid, "the name or id of a service or task is missing")
	}
	service, err := one[*api.Service](tx, key, store.ByName(key), store.ByIDPrefix(key))
	if err != nil || service != nil {
		return target{serviceID: service.GetId()}, err
	}
	task, err := one[*api.Task](tx, key, store.ByIDPrefix(key))
	if err != nil || task != nil {
		return target{taskID: task.GetId()}, err
	}
	return target{}, fault.New(fault.NotFound, "no such task or service: %s", key)
}

// one returns the object with the id, else the only one that the first of by selects which selects any, else nil.
func one[T store.Object](tx store.ReadTx, key string, by ...store.By) (T, error) {
	var none T
	found, err := store.Get[T](tx, key)
	if !errors.Is(err, store.ErrNotFound) {
		return found, err
	}
	for _, selector := range by {
		matches, err := store.List[T](tx, selector)
		switch {
		case err != nil:
			return none, err
		case len(matches) == 1:
			return matches[0], nil
		case len(matches) > 1:
			return none, fault.New(fault.Invalid, "%s is ambiguous (%d matches found)", key, len(matches))
		}
	}
	return none, nil
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
	list = slices.DeleteFunc(all, func(task *api.Task) bool { return !hasLogs(task) })
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
