package orchestrator

import (
	"slices"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/eligible"
	"github.com/skep-io/skep/manager/taskstate"
)

// Core decides what is to be done for one key. It is pure: it must not change anything in the view, and the same arguments
// give the same effects. wake is when to ask again if nothing changes until then, or zero.
type Core func(now time.Time, v View) (effects []Effect, wake time.Time)

// View is what a core sees of the store. Nothing in it may be changed.
type View struct {
	ServiceID string
	// Service is nil when it was removed.
	Service *api.Service
	// Tasks are all of the service, or for a core that is asked by slot, those of one slot; ordered by id.
	Tasks []*api.Task
	// HistoryLimit is the number of ended tasks that a slot keeps; negative keeps all.
	HistoryLimit int64
	// Node returns a node, or nil when there is none with the id. Never nil itself.
	Node func(id string) *api.Node
	// Crowded reports whether a task is one that its node has no room for any more; nil is no task. See [Crowded].
	Crowded func(*api.Task) bool
	// Eligible are the nodes of a service that is to run on every node, in a view of the whole service, for loops with [EveryNode].
	Eligible eligible.Nodes
	parsed   parsed
}

// Lost reports whether nobody waits for the task's node: it was removed, or it is down. A task without a node is not lost.
func (v View) Lost(t *api.Task) bool {
	if t.GetNodeId() == "" {
		return false
	}
	n := v.Node(t.GetNodeId())
	return n == nil || n.GetStatus().GetState() == api.NodeState_NODE_STATE_DOWN
}

// Gone reports whether the task's node was removed from the swarm.
func (v View) Gone(t *api.Task) bool { return t.GetNodeId() != "" && v.Node(t.GetNodeId()) == nil }

// Away reports whether tasks, all of one slot, are bound to a node that is down or gone: nothing can be done for the slot.
func (v View) Away(tasks []*api.Task) bool {
	if len(tasks) == 0 || tasks[0].GetBoundNodeId() == "" {
		return false
	}
	n := v.Node(tasks[0].GetBoundNodeId())
	return n == nil || n.GetStatus().GetState() == api.NodeState_NODE_STATE_DOWN
}

// Drained reports whether the task's node is to be emptied.
func (v View) Drained(t *api.Task) bool {
	return v.Node(t.GetNodeId()).GetSpec().GetAvailability() == api.Availability_AVAILABILITY_DRAIN
}

// DrainEnds is when the drain of the task's node is over, and what is left there moves at once: zero is never. It says nothing of a node that
// is not drained.
func (v View) DrainEnds(t *api.Task) time.Time {
	n := v.Node(t.GetNodeId())
	if n.GetSpec().GetDrainTimeout() == nil || n.GetStatus().GetDrainBeganAt() == nil {
		return time.Time{}
	}
	return n.GetStatus().GetDrainBeganAt().AsTime().Add(n.GetSpec().GetDrainTimeout().AsDuration())
}

// StartsFirst reports whether, in an order, a new task of a service starts before the old one stops. Both could not have the same ports of
// a node.
func StartsFirst(s *api.Service, order api.UpdateOrder) bool {
	return order == api.UpdateOrder_UPDATE_ORDER_START_FIRST && len(s.GetSpec().GetEndpoint().GetPorts()) == 0
}

// Blocked reports whether one of tasks, all of one slot, may still run although it was told to stop, so that a new task of
// the slot has to wait (I5).
func (v View) Blocked(tasks []*api.Task) bool {
	for _, t := range tasks {
		if taskstate.MayOverlap(t, v.Lost(t) && !v.Awaited(t, tasks)) {
			return true
		}
	}
	return false
}

// Awaited reports whether the slot, whose tasks are given, waits for the node of one of them, because its volumes are there. Then its next
// task also waits for that one to have ended, however long nothing is heard of the node: two at once could ruin the data.
func (v View) Awaited(t *api.Task, tasks []*api.Task) bool {
	return !v.Gone(t) && slices.ContainsFunc(tasks, func(other *api.Task) bool {
		return other != t && taskstate.Live(other) && other.GetVolumeNodeId() != "" && other.GetVolumeNodeId() == t.GetNodeId()
	})
}

// volumeNode returns the node that the next task of a slot has to run on because of its volumes, or "".
func (v View) volumeNode(tasks []*api.Task) string {
	id := taskstate.VolumeNode(v.Service.GetSpec().GetTask(), tasks)
	if v.Node(id) == nil {
		return ""
	}
	return id
}

// Effect is applied whole, or not at all. Its zero fields mean nothing.
type Effect struct {
	// Create makes a task with the service's present spec.
	Create *Creation
	// Desired raises desired states.
	Desired []Desire
	// Orphan declares that a task, by id, has ended because its node will not tell any more.
	Orphan string
	// Delete forgets a task, by id.
	Delete string
	// Adopt gives a task, by id, the service's present spec version: it is what the present spec would make anew.
	Adopt string
	// Restore puts the service's previous spec in force again, with Status. Where something that the spec needs is gone meanwhile, the
	// update is paused instead.
	Restore bool
	// Status replaces the service's update status.
	Status *api.UpdateStatus
	// Stands says that the effect stays right for as long as the service is what the core saw, whatever its tasks do meanwhile. Then a
	// core that wants more than one transaction takes is not asked again for each of them. A creation stands while its slot is empty.
	Stands bool
}

// Creation is a new task.
type Creation struct {
	Slot uint64
	// Desired is READY for a task that has to wait, else RUNNING.
	Desired api.TaskState
	// BoundNodeID is the only node that the task may run on; empty is any.
	BoundNodeID string
	// VolumeNodeID is the node with the volumes of the slot, or empty.
	VolumeNodeID string
	// RestartCount is the task's.
	RestartCount uint64
}

// Desire is a new desired state of a task. Desired states only go up: a lower one is ignored.
type Desire struct {
	TaskID string
	State  api.TaskState
}

// Stand marks effects as ones that stand.
func Stand(effects []Effect) []Effect {
	for i := range effects {
		effects[i].Stands = true
	}
	return effects
}

// Remove has tasks stop and be forgotten, those that are not told to already.
func Remove(tasks []*api.Task) []Effect {
	var effects []Effect
	for _, t := range tasks {
		if taskstate.Kept(t) {
			effects = append(effects, Effect{Desired: []Desire{{TaskID: t.GetId(), State: api.TaskState_TASK_STATE_REMOVE}}})
		}
	}
	return effects
}

// Replacement is the task that follows in a slot whose tasks are given, after those in stop were told to stop in the same
// transaction: it waits for as long as one of either may still run. It is bound to the node that those are bound to, and goes to the one that
// has its volumes.
func (v View) Replacement(slot uint64, tasks, stop []*api.Task) *Creation {
	c := &Creation{Slot: slot, Desired: api.TaskState_TASK_STATE_RUNNING}
	if len(tasks) > 0 {
		c.BoundNodeID = tasks[0].GetBoundNodeId()
	}
	if c.BoundNodeID == "" {
		c.VolumeNodeID = v.volumeNode(tasks)
	}
	stops := func(t *api.Task) bool {
		return taskstate.HoldsNode(t) && (!v.Lost(t) || t.GetNodeId() == c.VolumeNodeID) && (!taskstate.Live(t) || slices.Contains(stop, t))
	}
	if slices.ContainsFunc(slices.Concat(tasks, stop), stops) {
		c.Desired = api.TaskState_TASK_STATE_READY
	}
	return c
}

// Rescue replaces the live tasks of a slot that are on nodes which cannot run them: lost, unfit, or drained, but for those that stay a
// while on a drained node. false says that there are none.
func (v View) Rescue(slot uint64, tasks []*api.Task, stays func(*api.Task) bool) (Effect, bool) {
	var e Effect
	var stop []*api.Task
	safe := false
	for _, t := range tasks {
		switch {
		case !taskstate.Live(t):
		case taskstate.Ended(t):
			// restart decides what follows.
			safe = true
		case v.Gone(t):
			stop = append(stop, t)
			e.Desired = append(e.Desired, Desire{TaskID: t.GetId(), State: api.TaskState_TASK_STATE_REMOVE})
		case v.Lost(t), v.Unfit(t), v.Drained(t) && !stays(t):
			stop = append(stop, t)
			e.Desired = append(e.Desired, Desire{TaskID: t.GetId(), State: api.TaskState_TASK_STATE_SHUTDOWN})
		default:
			safe = true
		}
	}
	if len(stop) == 0 {
		return Effect{}, false
	}
	if !safe {
		e.Create = v.Replacement(slot, tasks, stop)
	}
	return e, true
}
