package update

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/taskstate"
)

// maxReason bounds in bytes how much of a task's own error a message repeats: a line on a screen.
const maxReason = 300

// rolledBack begins the message of a service that goes back although nobody asked for it; it is kept, because the failed tasks are not.
const rolledBack = "update rolled back "

func started(now time.Time) *api.UpdateStatus {
	return &api.UpdateStatus{
		State: api.UpdateState_UPDATE_STATE_UPDATING, StartedAt: timestamppb.New(now), CountsFrom: timestamppb.New(now),
		Message: "update in progress",
	}
}

func (p *progress) completed(now time.Time) *api.UpdateStatus {
	status := p.next(api.UpdateState_UPDATE_STATE_COMPLETED, "update completed")
	if p.back {
		message := "rollback completed"
		if cause, unasked := strings.CutPrefix(p.service.GetUpdateStatus().GetMessage(), rolledBack); unasked {
			message += ": " + rolledBack + cause
		}
		status = p.next(api.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED, message)
	}
	status.CompletedAt = timestamppb.New(now)
	return status
}

// next is the status of the same update in another state.
func (p *progress) next(state api.UpdateState, message string) *api.UpdateStatus {
	old := p.service.GetUpdateStatus()
	return &api.UpdateStatus{State: state, StartedAt: old.GetStartedAt(), CountsFrom: old.GetCountsFrom(), Message: message}
}

// stop returns what ends the update because too many slots failed, or false.
func (p *progress) stop(now time.Time) (orchestrator.Effect, bool) {
	if len(p.failed) == 0 || float32(len(p.failed))/float32(p.total) <= p.ratio || p.action == api.FailureAction_FAILURE_ACTION_CONTINUE {
		return orchestrator.Effect{}, false
	}
	last := p.failed[0]
	for _, f := range p.failed {
		if f.at.After(last.at) {
			last = f
		}
	}
	cause := last.describe(p.deadline)
	switch {
	case p.back:
		return orchestrator.Effect{Status: p.next(api.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED, "rollback paused "+cause)}, true
	case p.action == api.FailureAction_FAILURE_ACTION_ROLLBACK && p.canGoBack():
		return orchestrator.Effect{Restore: true, Status: &api.UpdateStatus{
			State: api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED, StartedAt: timestamppb.New(now), CountsFrom: timestamppb.New(now),
			Message: rolledBack + cause,
		}}, true
	default:
		return orchestrator.Effect{Status: p.next(api.UpdateState_UPDATE_STATE_PAUSED, "update paused "+cause)}, true
	}
}

// canGoBack reports whether the update came with another spec: one because of a grant that was changed did not.
func (p *progress) canGoBack() bool {
	return p.service.GetPreviousSpec() != nil && p.service.GetPreviousSpecVersion() != 0
}

// describe says in the end of a sentence what failed, and why as far as the task says.
func (f failure) describe(deadline time.Duration) string {
	status := f.task.GetStatus()
	text := fmt.Sprintf("due to failure or early termination of task %s", f.task.GetId())
	reason := status.GetErr()
	if f.late {
		text = fmt.Sprintf("because task %s does not run %v after it was made", f.task.GetId(), deadline)
		if taskstate.Running(f.task) {
			text = fmt.Sprintf("because task %s was not ready for %v", f.task.GetId(), deadline)
		}
		if f.before != nil && f.task.GetDesiredState() == api.TaskState_TASK_STATE_READY {
			reason = cmp.Or(reason, fmt.Sprintf("it waits for task %s to stop", f.before.GetId()))
		}
		reason = cmp.Or(reason, status.GetMessage())
	}
	reason, _, _ = strings.Cut(strings.TrimSpace(reason), "\n")
	if reason == "" {
		return text
	}
	return text + ": " + fault.Clip(reason, maxReason)
}
