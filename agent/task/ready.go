package task

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// whyUnready begins the error of a task that runs, and is not to have work.
const whyUnready = "not ready: "

// recallReadiness takes in what the last run of the daemon knew, or nothing of a task that did not run then.
func (m *Machine) recallReadiness() {
	m.readiness = m.status.GetReadiness()
	if why := m.status.GetErr(); m.readiness != nil && strings.HasPrefix(why, whyUnready) {
		m.unready = why
	}
}

// becomeRunning says that the task runs. From then on it is found out whether it is ready, if its spec says how.
func (m *Machine) becomeRunning(now time.Time, message string) {
	checked := len(m.task.GetSpec().GetContainer().GetReady().GetTest()) > 0
	if checked && m.readiness == nil {
		m.readiness = &api.Readiness{}
	}
	if checked {
		message = m.readyMessage()
	}
	if m.reviving {
		m.reviving = false
		m.set(timestamppb.New(now), api.TaskState_TASK_STATE_RUNNING, message, m.trouble())
	} else {
		m.report(now, api.TaskState_TASK_STATE_RUNNING, message, m.trouble())
	}
	if checked {
		m.do(OpProbeReady)
	}
}

// readyMessage is another one when the task is ready: managers that know of no readiness take that for news, and pass it on.
func (m *Machine) readyMessage() string {
	if m.readiness.GetReady() {
		return "ready"
	}
	return "not ready"
}

// probedReady takes in news of whether the task is ready. It is never ended for that.
func (m *Machine) probedReady(r *api.Readiness, why string) {
	if m.phase != phaseRunning || m.unhealthy != "" || m.stopWanted() {
		return
	}
	m.readiness, m.unready = r, ""
	if !r.GetReady() {
		m.unready = whyUnready + why
	}
	m.tell(m.readyMessage(), m.trouble())
}

// readinessUnknown takes in that the checks ended, although the container may run.
func (m *Machine) readinessUnknown(err error) {
	if kind := fault.KindOf(err); kind != fault.NotFound && m.phase == phaseRunning { // else it is gone, which OpWatch tells
		m.probedReady(&api.Readiness{}, err.Error())
	}
}
