package taskstate

import (
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
)

// Ready reports whether t is to have work: it runs, is to run, and its readiness check, if it has one, says so. It is what an update waits for,
// what replicas are counted by, and what everything asks that sends work to tasks.
func Ready(t *api.Task) bool {
	r := t.GetStatus().GetReadiness()
	return Running(t) && (r == nil || r.GetReady())
}

// ReadySince is when t, which is ready, became so last.
func ReadySince(t *api.Task) time.Time {
	if at := t.GetStatus().GetReadiness().GetReadyAt(); at != nil {
		return at.AsTime()
	}
	return RunningSince(t)
}

// WasReady is when t, which may have ended, became ready last, or false if it never did.
func WasReady(t *api.Task) (time.Time, bool) {
	at := t.GetStatus().GetRunningAt()
	if r := t.GetStatus().GetReadiness(); r != nil {
		at = r.GetReadyAt()
	}
	return at.AsTime(), at != nil
}

// Readiness returns what becomes of the readiness of a task with a spec and the status old, of which a node reports another: nil if
// it is not checked, or never ran. A node that says nothing of a check, as one of an older version, says that the task is not ready.
// The times are those of the managers: nodes' clocks differ, and a node may lie.
func Readiness(spec *api.TaskSpec, old, reported *api.TaskStatus, now time.Time) *api.Readiness {
	before := old.GetReadiness()
	if spec.GetContainer().GetReady() == nil || reported.GetState() < api.TaskState_TASK_STATE_RUNNING ||
		before == nil && reported.GetState() != api.TaskState_TASK_STATE_RUNNING {
		return nil
	}
	r := &api.Readiness{
		Ready: reported.GetReadiness().GetReady(), Checks: reported.GetReadiness().GetChecks(),
		ReadyAt: before.GetReadyAt(), LostAt: before.GetLostAt(),
	}
	switch {
	case r.GetReady() && !before.GetReady():
		r.ReadyAt = timestamppb.New(now)
	case !r.GetReady() && before.GetReady():
		r.LostAt = timestamppb.New(now)
	}
	return r
}

// newReadiness reports whether a node says something else of a task's readiness than is known.
func newReadiness(old, reported *api.Readiness) bool {
	return reported.GetReady() != old.GetReady() || !proto.Equal(reported.GetChecks(), old.GetChecks())
}
