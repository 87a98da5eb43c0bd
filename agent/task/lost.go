package task

import (
	"time"

	"github.com/skep-io/skep/api"
)

const (
	goneText     = "the container is gone: the node was restarted, or the container removed by hand"
	revivingText = "to be started again by its node, which was restarted with no manager in reach"
	revivedText  = "started again by its node, which was restarted with no manager in reach"
)

// isLost reports whether a container ended with the machine that the task is to run on, so that who decides about another start may be
// the node itself: it does what managers would, by the restart policy.
func (m *Machine) isLost(found *api.ContainerStatus, lost bool) bool {
	if m.stopWanted() || found == nil && m.status.GetState() < api.TaskState_TASK_STATE_RUNNING || found != nil && !lost {
		return false
	}
	switch m.task.GetSpec().GetRestart().GetCondition() {
	case api.RestartCondition_RESTART_CONDITION_NONE:
		return false
	case api.RestartCondition_RESTART_CONDITION_ON_FAILURE: // as of all jobs, of which one may have succeeded just before
		return found == nil || found.GetExitCode() != 0
	default:
		return true
	}
}

// settleLost ends a task whose container is gone, unless no manager decides about it yet. That it failed makes managers replace it.
func (m *Machine) settleLost(now time.Time) {
	switch {
	case !m.stopWanted() && !m.reached:
	case m.container != nil:
		m.started(now) // OpWatch tells how it ended
	default:
		m.endBegun(now)
		m.advanceEnded()
	}
}

// revive starts a task again whose container ended with the machine. If it ran, its state stays RUNNING (I6): for managers, which can't be told,
// it is. One that was not known to run begins as a new one does.
func (m *Machine) revive(now time.Time) {
	if m.phase != phaseLost || m.reached || m.stopWanted() {
		return
	}
	m.reviving, m.container = true, nil
	if m.status.GetState() < api.TaskState_TASK_STATE_RUNNING {
		m.phase = phaseNew
		return
	}
	m.report(now, api.TaskState_TASK_STATE_RUNNING, revivingText, "")
	m.phase = phasePreparing
	m.do(OpPrepare)
}

// Reviving reports whether a status is of a task that is to be started again by its node, and does not run yet; its error says why, if it can't.
func Reviving(s *api.TaskStatus) bool {
	return s.GetState() <= api.TaskState_TASK_STATE_RUNNING && s.GetMessage() == revivingText
}

// beginUnwanted reports whether a task that does not run yet is not to: when a manager is in reach, it decides what follows a task that was lost.
func (m *Machine) beginUnwanted() bool { return m.stopWanted() || m.reviving && m.reached }

// endBegun ends a task that does not run, and is not to.
func (m *Machine) endBegun(now time.Time) {
	if m.stopWanted() {
		m.end(now, api.TaskState_TASK_STATE_SHUTDOWN, "shutdown", "")
		return
	}
	m.end(now, api.TaskState_TASK_STATE_FAILED, "failed", goneText)
}

// waitingMessage says that an operation is tried again.
func (m *Machine) waitingMessage(op Operation) string {
	if m.reviving {
		return revivingText
	}
	return "waiting to " + op.String()
}
