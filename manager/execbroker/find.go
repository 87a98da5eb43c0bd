package execbroker

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/lookup"
	"github.com/skep-io/skep/manager/privilege"
	"github.com/skep-io/skep/manager/reach"
	"github.com/skep-io/skep/store"
)

// place is a running task, and its node.
type place struct {
	task *api.Task
	node *api.Node
	// grants are those of the task as they are now, and as they were when it was made where they gave something else then.
	grants []*api.Grant
}

// name is the task's place in its service: web.1.
func (p place) name() string { return nameOf(p.task) }

func nameOf(t *api.Task) string {
	return t.GetServiceName() + "." + strconv.FormatUint(t.GetSlot(), 10)
}

// find resolves a task's id, an id prefix that no other has, or SERVICE.SLOT, and checks that it can be reached (B1).
func find(tx store.ReadTx, key string) (place, error) {
	task, err := findTask(tx, key)
	if err != nil {
		return place{}, err
	}
	if state := task.GetStatus().GetState(); state != api.TaskState_TASK_STATE_RUNNING {
		return place{}, fault.New(fault.Precondition, "task %s (%s) is not running but %s", nameOf(task), task.GetId(),
			strings.ToLower(strings.TrimPrefix(state.String(), "TASK_STATE_")))
	}
	node, err := store.Get[*api.Node](tx, task.GetNodeId())
	if errors.Is(err, store.ErrNotFound) {
		return place{}, fault.New(fault.Unavailable, "the node of task %s was removed from the swarm", nameOf(task))
	}
	if err != nil {
		return place{}, err
	}
	if node.GetStatus().GetState() == api.NodeState_NODE_STATE_DOWN {
		return place{}, fault.New(fault.Unavailable, "node %s of task %s is down", reach.Hostname(node), nameOf(task))
	}
	grants, err := grantsOf(tx, task)
	return place{task: task, node: node, grants: grants}, err
}

// grantsOf gives the grants that decide who may get into a task.
func grantsOf(tx store.ReadTx, task *api.Task) (grants []*api.Grant, err error) {
	for _, had := range task.GetGrants() {
		now, err := store.Get[*api.Grant](tx, had.GetId())
		gone := errors.Is(err, store.ErrNotFound) // with its service; the task is about to end
		if err != nil && !gone {
			return nil, err
		}
		if gone || !privilege.SameGift(had, now) {
			grants = append(grants, had)
		}
		if !gone {
			grants = append(grants, now)
		}
	}
	return grants, nil
}

func findTask(tx store.ReadTx, key string) (*api.Task, error) {
	if key == "" {
		return nil, fault.New(fault.Invalid, "the name or id of a task is missing")
	}
	task, err := store.Get[*api.Task](tx, key)
	if !errors.Is(err, store.ErrNotFound) {
		return task, err
	}
	inSlot, err := lookup.InSlot(tx, key)
	if err == nil {
		return best(inSlot), nil
	}
	if fault.KindOf(err) != fault.NotFound {
		return nil, err
	}
	matches, err := store.List[*api.Task](tx, store.ByIDPrefix(key))
	switch {
	case err != nil:
		return nil, err
	case len(matches) == 1:
		return matches[0], nil
	case len(matches) > 1:
		return nil, fault.New(fault.Invalid, "%s is ambiguous (%d tasks have ids that begin so)", key, len(matches))
	}
	return nil, fault.New(fault.NotFound, "no such task: %s (write an id from `skep service ps`, or SERVICE.SLOT)", key)
}

// best gives the task of a slot that runs, else the newest.
func best(inSlot []*api.Task) *api.Task {
	runs := func(t *api.Task) bool { return t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING }
	return slices.MaxFunc(inSlot, func(a, b *api.Task) int {
		switch {
		case runs(a) == runs(b):
			return a.GetMeta().GetCreatedAt().AsTime().Compare(b.GetMeta().GetCreatedAt().AsTime())
		case runs(a):
			return 1
		default:
			return -1
		}
	})
}
