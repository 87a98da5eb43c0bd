package taskstate

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// States returns the states that a task can be observed in, in ascending order.
func States() []api.TaskState {
	return []api.TaskState{
		api.TaskState_TASK_STATE_NEW, api.TaskState_TASK_STATE_PENDING, api.TaskState_TASK_STATE_ASSIGNED,
		api.TaskState_TASK_STATE_ACCEPTED, api.TaskState_TASK_STATE_PREPARING, api.TaskState_TASK_STATE_READY,
		api.TaskState_TASK_STATE_STARTING, api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_COMPLETE,
		api.TaskState_TASK_STATE_SHUTDOWN, api.TaskState_TASK_STATE_FAILED, api.TaskState_TASK_STATE_REJECTED,
		api.TaskState_TASK_STATE_ORPHANED,
	}
}

// Reportable reports whether an agent may say that its task is in state s.
func Reportable(s api.TaskState) bool {
	switch s {
	case api.TaskState_TASK_STATE_ACCEPTED, api.TaskState_TASK_STATE_PREPARING, api.TaskState_TASK_STATE_READY,
		api.TaskState_TASK_STATE_STARTING, api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_COMPLETE,
		api.TaskState_TASK_STATE_SHUTDOWN, api.TaskState_TASK_STATE_FAILED, api.TaskState_TASK_STATE_REJECTED:
		return true
	default:
		return false
	}
}

// Accepts reports whether a task with the status old takes the status that its agent reports: a higher state, or news about
// the state that it is in, such as a message (I6). An ended task takes nothing.
func Accepts(old, reported *api.TaskStatus) bool {
	if !Reportable(reported.GetState()) || old.GetState() > api.TaskState_TASK_STATE_RUNNING {
		return false
	}
	if reported.GetState() != old.GetState() {
		return reported.GetState() > old.GetState()
	}
	return reported.GetMessage() != old.GetMessage() || reported.GetErr() != old.GetErr() ||
		!proto.Equal(reported.GetContainer(), old.GetContainer()) || newReadiness(old.GetReadiness(), reported.GetReadiness())
}

// Job reports whether the tasks of a spec are to end.
func Job(spec *api.ServiceSpec) bool {
	return spec.GetReplicatedJob() != nil || spec.GetGlobalJob() != nil
}

// EveryNode reports whether the tasks of a spec are one on each node.
func EveryNode(spec *api.ServiceSpec) bool {
	return spec.GetGlobal() != nil || spec.GetGlobalJob() != nil
}

// Slots groups tasks of a service by slot. The order within a slot is that of tasks.
func Slots(tasks []*api.Task) map[uint64][]*api.Task {
	slots := make(map[uint64][]*api.Task, len(tasks))
	for _, t := range tasks {
		slots[t.GetSlot()] = append(slots[t.GetSlot()], t)
	}
	return slots
}

// Done reports whether a job's slot has done its work: one of tasks, all of the slot, ended well in the job's present iteration.
func Done(s *api.Service, tasks []*api.Task) bool {
	return slices.ContainsFunc(tasks, func(t *api.Task) bool {
		return Kept(t) && t.GetSpecVersion() == s.GetSpecVersion() && t.GetStatus().GetState() == api.TaskState_TASK_STATE_COMPLETE
	})
}

// Name is the name of a task's place in its service: web.1.
func Name(t *api.Task) string { return fmt.Sprintf("%s.%d", t.GetServiceName(), t.GetSlot()) }

// Live reports whether t is meant to run, now or soon.
func Live(t *api.Task) bool { return t.GetDesiredState() <= api.TaskState_TASK_STATE_RUNNING }

// Running reports whether t is to run, and does.
func Running(t *api.Task) bool {
	return Live(t) && t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING
}

// RunningSince is when t, which runs, began to. A leader of an older version did not note it.
func RunningSince(t *api.Task) time.Time {
	if at := t.GetStatus().GetRunningAt(); at != nil {
		return at.AsTime()
	}
	return t.GetMeta().GetUpdatedAt().AsTime()
}

// Kept reports whether t counts for its slot: it is live, or the history of it.
func Kept(t *api.Task) bool { return t.GetDesiredState() < api.TaskState_TASK_STATE_REMOVE }

// Ended reports whether t has stopped for good, or is assumed to have.
func Ended(t *api.Task) bool { return t.GetStatus().GetState() > api.TaskState_TASK_STATE_RUNNING }

// EndedItself reports whether t ended without having been told to.
func EndedItself(t *api.Task) bool {
	switch t.GetStatus().GetState() {
	case api.TaskState_TASK_STATE_COMPLETE, api.TaskState_TASK_STATE_FAILED, api.TaskState_TASK_STATE_REJECTED:
		return true
	default:
		return false
	}
}

// Assigned reports whether t was given to a node.
func Assigned(t *api.Task) bool {
	return t.GetNodeId() != "" && t.GetStatus().GetState() >= api.TaskState_TASK_STATE_ASSIGNED
}

// NeedsValues reports whether t's node needs the secrets and configs of t, now or later (I7).
func NeedsValues(t *api.Task) bool { return Assigned(t) && Live(t) && !Ended(t) }

// HoldsNode reports whether t takes up resources, ports and addresses of its node.
func HoldsNode(t *api.Task) bool { return Assigned(t) && !Ended(t) }

// MayOverlap reports whether t may still run although it was told to stop, so that another task of its slot must wait (I5).
// lost says that t's node is not there any more or is down: nobody waits for it.
func MayOverlap(t *api.Task, lost bool) bool { return HoldsNode(t) && !Live(t) && !lost }

// Compare orders the tasks of one slot from the oldest to the newest: by spec, then the live one last, because it replaced the
// others, and only then by time: the clocks of two leaders may differ.
func Compare(a, b *api.Task) int {
	if c := cmp.Compare(a.GetSpecVersion(), b.GetSpecVersion()); c != 0 {
		return c
	}
	if Live(a) != Live(b) {
		if Live(a) {
			return 1
		}
		return -1
	}
	if c := a.GetMeta().GetCreatedAt().AsTime().Compare(b.GetMeta().GetCreatedAt().AsTime()); c != 0 {
		return c
	}
	return cmp.Compare(a.GetId(), b.GetId())
}

// New returns a fresh task of a slot with the present spec of its service. The caller owns it; it shares nothing with s.
func New(s *api.Service, slot uint64, id string, desired api.TaskState) *api.Task {
	return &api.Task{
		Id: id, ServiceId: s.GetId(), ServiceName: s.GetSpec().GetAnnotations().GetName(), Slot: slot,
		Spec: proto.CloneOf(s.GetSpec().GetTask()), SpecVersion: s.GetSpecVersion(),
		Endpoint:     proto.CloneOf(s.GetSpec().GetEndpoint()),
		Status:       &api.TaskStatus{State: api.TaskState_TASK_STATE_NEW, Message: "created"},
		DesiredState: desired,
	}
}
