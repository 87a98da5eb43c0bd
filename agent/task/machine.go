package task

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// defaultGrace is the time between the stop signal and SIGKILL when the spec names none; Docker's.
	defaultGrace = 10 * time.Second
	// maxGrace bounds what a spec can ask for, so that a task can always be ended.
	maxGrace = 24 * time.Hour
	// retryMin and retryMax bound the delay before an operation is tried again.
	retryMin = 250 * time.Millisecond
	retryMax = 15 * time.Second
	// killInterval is the time between SIGKILLs while a process doesn't end, as one in uninterruptible sleep.
	killInterval = 10 * time.Second
)

// Operation is something that an [Executor] does for a task.
type Operation int

// The operations.
const (
	// OpPrepare makes everything ready short of the process.
	OpPrepare Operation = iota + 1
	// OpStart starts the process.
	OpStart
	// OpWatch waits for the end of the process.
	OpWatch
	// OpStop asks the process to end.
	OpStop
	// OpKill ends it.
	OpKill
	// OpRelease frees all but the log.
	OpRelease
	// OpRemove frees what is left.
	OpRemove
	// OpProbe checks the container's health.
	OpProbe
	// OpProbeReady checks whether the container is ready.
	OpProbeReady
	// OpRefresh writes files again whose values changed.
	OpRefresh
)

// String returns the operation as it stands in messages.
func (o Operation) String() string {
	switch o {
	case OpPrepare:
		return "prepare"
	case OpStart:
		return "start"
	case OpWatch:
		return "watch"
	case OpStop:
		return "stop"
	case OpKill:
		return "kill"
	case OpRelease:
		return "release"
	case OpRemove:
		return "remove"
	case OpProbe:
		return "probe"
	case OpProbeReady:
		return "probe readiness"
	case OpRefresh:
		return "refresh"
	default:
		return fmt.Sprintf("operation %d", int(o))
	}
}

// Input is what happened to a task. Exactly one kind of fact is in it.
type Input struct {
	// Begin is the first input: the daemon starts or the task is new.
	Begin bool
	// Found is, with Begin, the container that runs or ran already, or nil.
	Found *api.ContainerStatus
	// Lost says, with Found, that the container ended with the machine, or that nobody knows how.
	Lost bool
	// Reached says that a manager has told what is assigned, which is in the Inputs before.
	Reached bool
	// Alone says that no manager is in reach: what the node's own restart ended may be started again.
	Alone bool
	// Task is a new version of the assignment, or nil.
	Task *api.Task
	// Unassigned says that the task is this node's no more.
	Unassigned bool
	// Done is the operation that ended, or 0.
	Done Operation
	// Probed is what OpProbe tells of the container's health while it goes on, or nil.
	Probed *api.ContainerStatus
	// Readiness is what OpProbeReady tells while it goes on, or nil, and Why is why the last check failed, or "".
	Readiness *api.Readiness
	Why       string
	// Container is, with Done, what OpStart or OpWatch found, or the values that OpRefresh did.
	Container *api.ContainerStatus
	// Err is, with Done, why the operation failed, or nil.
	Err error
	// Wake says that what operations waited for may be there: they are tried again now.
	Wake bool
	// Tick says that the time of an [Effect.Wake] has come.
	Tick bool
}

// Effect is what is to be done about a task. Exactly one kind of request is in it.
type Effect struct {
	// Do is an operation to begin, or 0. Its end comes back as Input.Done.
	Do Operation
	// Cancel asks the operation under way to give up; its end comes back all the same.
	Cancel bool
	// Report is a status to save and to tell the managers, or nil. The receiver must not modify it.
	Report *api.TaskStatus
	// Wake is when to send Input.Tick, or zero. A new one replaces the last.
	Wake time.Time
	// Forget ends the machine: the task's record can go.
	Forget bool
}

// phase is what the machine waits for.
type phase int

const (
	phaseNew phase = iota
	// phaseLost: what ran is gone, and it isn't known yet whether a manager is in reach.
	phaseLost
	phasePreparing
	phaseReady
	phaseStarting
	phaseRunning
	phaseEnded
	phaseReleasing
	phaseReleased
	phaseRemoving
	phaseRemoved
	phaseForgotten
)

// Machine is the life of one task on a node. It has no clock, no goroutines and no I/O; see the package comment.
type Machine struct {
	task   *api.Task
	status *api.TaskStatus
	phase  phase
	// unassigned says that the task is this node's no more.
	unassigned bool
	// container is the last known container, or nil.
	container *api.ContainerStatus
	// again is the operation to repeat at retryAt, or 0.
	again    Operation
	retryAt  time.Time
	attempts int
	// cancelled says that the operation under way was asked to give up.
	cancelled bool
	// reviving is set while a task that ran is started again, and reached once a manager told what is assigned.
	reviving, reached bool
	// killAt is when to send SIGKILL, or zero while the process was not asked to end.
	killAt time.Time
	// unhealthy says why the task is ended although it is wanted, or is empty.
	unhealthy string
	// readiness is what is known of it, or nil, and unready why it is not, or empty.
	readiness *api.Readiness
	unready   string
	// stopAt is when to repeat a stop signal that was not delivered, or zero.
	stopAt time.Time
	// refreshing is how the files follow their values.
	refreshing refreshing
	// wakeAt is the last Effect.Wake that was not followed by its Tick, or zero.
	wakeAt time.Time

	// underWay says which operations began and did not end yet.
	underWay [OpRefresh + 1]bool
	// effects are collected during one Step.
	effects []Effect
}

// NewMachine returns the machine of a task whose last status on this node was status, or nil for a new one. It keeps copies.
func NewMachine(t *api.Task, status *api.TaskStatus) *Machine {
	m := &Machine{task: proto.CloneOf(t), status: proto.CloneOf(status)}
	if m.status == nil {
		m.status = proto.CloneOf(t.GetStatus())
	}
	if m.status == nil {
		m.status = &api.TaskStatus{State: api.TaskState_TASK_STATE_ASSIGNED}
	}
	return m
}

// Status returns the last status. The caller must not modify it.
func (m *Machine) Status() *api.TaskStatus { return m.status }

// Task returns the last assignment. The caller must not modify it.
func (m *Machine) Task() *api.Task { return m.task }

// Step takes in what happened and returns what to do, in order.
func (m *Machine) Step(now time.Time, in Input) []Effect {
	m.effects = nil
	switch {
	case in.Begin:
		m.begin(now, in.Found, in.Lost)
	case in.Task != nil:
		m.assign(in.Task)
	case in.Unassigned:
		m.unassigned = true
	case in.Reached:
		m.reached = true
	case in.Alone:
		m.revive(now)
	case in.Done != 0:
		m.done(now, in)
	case in.Probed != nil:
		m.probed(now, in.Probed)
	case in.Readiness != nil:
		m.probedReady(in.Readiness, in.Why)
	case in.Wake:
		m.retryAt = now
		m.refreshing.wanted = true
	case in.Tick:
		m.wakeAt = time.Time{}
	}
	m.advance(now)
	m.wake()
	return m.effects
}

// begin enters the life of the task where the last run of the daemon left it.
func (m *Machine) begin(now time.Time, found *api.ContainerStatus, lost bool) {
	state := m.status.GetState()
	switch {
	case ended(state):
		m.phase = phaseEnded
	case m.isLost(found, lost):
		m.phase = phaseLost
		m.container = proto.CloneOf(found)
	case found != nil:
		m.container = proto.CloneOf(found)
		m.recallReadiness()
		m.reviving = Reviving(m.status)
		if !m.reviving && state >= api.TaskState_TASK_STATE_RUNNING && found.GetHealth() == api.HealthState_HEALTH_STATE_STARTING {
			m.container.Health = api.HealthState_HEALTH_STATE_HEALTHY // it was, before
		}
		m.started(now)
	case state >= api.TaskState_TASK_STATE_RUNNING: // T1
		m.end(now, api.TaskState_TASK_STATE_FAILED, "failed", goneText)
	default:
		m.phase = phaseNew
	}
}

// assign takes in a new version of the task. Only the desired state of a task ever changes, and only upwards (I6).
func (m *Machine) assign(t *api.Task) {
	m.unassigned = false
	if t.GetDesiredState() < m.task.GetDesiredState() {
		t = proto.CloneOf(t)
		t.DesiredState = m.task.GetDesiredState()
	}
	m.task = proto.CloneOf(t)
}

// done takes in the end of an operation.
func (m *Machine) done(now time.Time, in Input) {
	cancelled := m.cancelled
	m.cancelled = false
	m.underWay[in.Done] = false
	if in.Err != nil {
		m.failed(now, in, cancelled)
		return
	}
	m.attempts = 0
	switch in.Done {
	case OpPrepare:
		m.phase = phaseReady
		m.report(now, api.TaskState_TASK_STATE_READY, "prepared", "")
	case OpStart:
		m.container = in.Container
		m.started(now)
	case OpWatch:
		m.exited(now, in.Container)
	case OpStop, OpKill, OpProbe, OpProbeReady:
	case OpRefresh:
		m.noteRefresh(in.Container.GetValues(), "")
	case OpRelease:
		m.phase = phaseReleased
	case OpRemove:
		m.phase = phaseRemoved
	}
}

// started enters the phase in which the process runs. A container whose health is checked is not said to run before it is healthy.
func (m *Machine) started(now time.Time) {
	m.phase = phaseRunning
	m.refreshing.wanted = true // a value may have come since the files were made, or while the daemon didn't run
	switch health := m.container.GetHealth(); health {
	case api.HealthState_HEALTH_STATE_STARTING:
		m.report(now, api.TaskState_TASK_STATE_STARTING, "starting: not healthy yet", "")
		if m.reviving {
			m.tell(revivingText, "not healthy yet")
		}
		m.do(OpProbe)
	case api.HealthState_HEALTH_STATE_HEALTHY:
		m.becomeRunning(now, "started and healthy")
		m.do(OpProbe)
	default:
		message := "started"
		if m.status.GetState() == api.TaskState_TASK_STATE_RUNNING {
			message = m.status.GetMessage()
		}
		if m.reviving {
			message = revivedText
		}
		m.becomeRunning(now, message)
	}
	m.do(OpWatch)
}

// probed takes in news of the container's health.
func (m *Machine) probed(now time.Time, c *api.ContainerStatus) {
	if m.phase != phaseRunning || m.unhealthy != "" || m.stopWanted() {
		return
	}
	m.container = proto.CloneOf(m.container)
	m.container.Health, m.container.HealthOutput, m.container.HealthChecks = c.GetHealth(), c.GetHealthOutput(), c.GetHealthChecks()
	switch {
	case c.GetHealth() == api.HealthState_HEALTH_STATE_UNHEALTHY:
		m.unhealthy = "unhealthy: " + c.GetHealthOutput()
		m.tell("unhealthy: is ended", m.unhealthy)
	case c.GetHealth() == api.HealthState_HEALTH_STATE_HEALTHY && (m.reviving || m.status.GetState() < api.TaskState_TASK_STATE_RUNNING):
		m.becomeRunning(now, "started and healthy")
	case (m.reviving || m.status.GetState() < api.TaskState_TASK_STATE_RUNNING) && c.GetHealthOutput() != "":
		m.tell(m.status.GetMessage(), "not healthy yet: "+c.GetHealthOutput())
	default:
		m.tell(m.status.GetMessage(), m.trouble())
	}
}

// failed takes in the failure of an operation.
func (m *Machine) failed(now time.Time, in Input, cancelled bool) {
	kind := fault.KindOf(in.Err)
	switch in.Done {
	case OpPrepare, OpStart:
		switch {
		case cancelled:
			m.endBegun(now)
		case kind == fault.Unavailable || m.reviving && !m.reached: // what the machine's start has not brought yet has no kind of its own
			m.report(now, m.status.GetState(), m.waitingMessage(in.Done), in.Err.Error())
			m.retry(now, in.Done)
		case in.Done == OpPrepare:
			m.end(now, api.TaskState_TASK_STATE_REJECTED, "rejected", in.Err.Error())
		default:
			m.end(now, api.TaskState_TASK_STATE_FAILED, "failed", in.Err.Error())
		}
	case OpWatch:
		if kind == fault.NotFound {
			m.exited(now, nil)
			return
		}
		m.retry(now, OpWatch)
	case OpStop:
		if kind != fault.NotFound { // else OpWatch tells
			m.stopAt = now.Add(m.delay())
		}
	case OpKill:
		m.killAt = now.Add(m.delay())
	case OpRelease, OpRemove:
		m.retry(now, in.Done) // I15
	case OpProbe: // the container is gone, which OpWatch tells
	case OpProbeReady:
		m.readinessUnknown(in.Err)
	case OpRefresh:
		m.notRefreshed(now, in.Err)
	}
}

// exited takes in the end of the process. The container is nil when nothing is known of it.
func (m *Machine) exited(now time.Time, c *api.ContainerStatus) {
	if c != nil {
		before := m.container
		m.container = proto.CloneOf(c)
		m.container.Health, m.container.HealthOutput, m.container.HealthChecks = before.GetHealth(), before.GetHealthOutput(), before.GetHealthChecks()
	}
	switch {
	case m.unhealthy != "" && !m.stopWanted():
		m.end(now, api.TaskState_TASK_STATE_FAILED, "failed", m.unhealthy)
	case m.stopWanted() || !m.killAt.IsZero():
		m.end(now, api.TaskState_TASK_STATE_SHUTDOWN, "shutdown", "")
	case c == nil:
		m.end(now, api.TaskState_TASK_STATE_FAILED, "failed", "the container is gone: it was removed by hand")
	case c.GetExitCode() == 0:
		m.end(now, api.TaskState_TASK_STATE_COMPLETE, "finished", "")
	default:
		m.end(now, api.TaskState_TASK_STATE_FAILED, "failed", exitText(m.task, c))
	}
}

// advance begins what the present phase and the desired state ask for.
func (m *Machine) advance(now time.Time) {
	if m.retrying(now) {
		return
	}
	switch m.phase {
	case phaseNew:
		if m.endBeforeStart(now) {
			return
		}
		m.report(now, api.TaskState_TASK_STATE_ACCEPTED, "accepted", "")
		m.report(now, api.TaskState_TASK_STATE_PREPARING, "preparing", "")
		m.phase = phasePreparing
		m.do(OpPrepare)
	case phaseLost:
		m.settleLost(now)
	case phasePreparing, phaseStarting:
		if m.beginUnwanted() && !m.cancelled {
			m.cancelled = true
			m.effects = append(m.effects, Effect{Cancel: true})
		}
	case phaseReady:
		if m.endBeforeStart(now) || m.task.GetDesiredState() < api.TaskState_TASK_STATE_RUNNING {
			return
		}
		m.report(now, api.TaskState_TASK_STATE_STARTING, "starting", "")
		m.phase = phaseStarting
		m.do(OpStart)
	case phaseRunning:
		m.refresh(now)
		m.advanceRunning(now)
	default:
		m.advanceEnded()
	}
}

// advanceRunning asks the process to end, and makes it end.
func (m *Machine) advanceRunning(now time.Time) {
	switch {
	case !m.stopWanted() && m.unhealthy == "":
	case m.killAt.IsZero():
		m.killAt = now.Add(grace(m.task))
		m.do(OpStop)
	case !now.Before(m.killAt):
		m.killAt = now.Add(killInterval)
		m.stopAt = time.Time{}
		m.do(OpKill)
	case !m.stopAt.IsZero() && !now.Before(m.stopAt):
		m.stopAt = time.Time{}
		m.do(OpStop)
	}
}

// advanceEnded frees what the task held.
func (m *Machine) advanceEnded() {
	switch m.phase {
	case phaseEnded:
		if m.underWay[OpRefresh] {
			return
		}
		m.phase = phaseReleasing
		m.do(OpRelease)
	case phaseReleased:
		if m.unassigned || m.task.GetDesiredState() >= api.TaskState_TASK_STATE_REMOVE {
			m.phase = phaseRemoving
			m.do(OpRemove)
		}
	case phaseRemoved:
		if m.unassigned {
			m.phase = phaseForgotten
			m.effects = append(m.effects, Effect{Forget: true})
		}
	}
}

// retrying handles an operation that waits to be repeated, and says whether the machine goes on waiting or just repeated it.
func (m *Machine) retrying(now time.Time) bool {
	if m.again == 0 {
		return false
	}
	begins := m.again == OpPrepare || m.again == OpStart
	if begins && m.beginUnwanted() {
		m.again = 0
		m.endBegun(now)
		return false
	}
	if now.Before(m.retryAt) {
		// A process whose end can't be watched just now can still be told to end.
		return m.again != OpWatch
	}
	op := m.again
	m.again = 0
	m.do(op)
	return true
}

func (m *Machine) retry(now time.Time, op Operation) {
	m.again = op
	m.retryAt = now.Add(m.delay())
}

// delay returns the next delay of a back-off.
func (m *Machine) delay() time.Duration {
	d := min(retryMin<<min(m.attempts, 16), retryMax)
	m.attempts++
	return d
}

// endBeforeStart ends a task that never started and is not wanted any more.
func (m *Machine) endBeforeStart(now time.Time) bool {
	if !m.beginUnwanted() {
		return false
	}
	m.endBegun(now)
	m.advanceEnded()
	return true
}

func (m *Machine) end(now time.Time, state api.TaskState, message, err string) {
	m.report(now, state, message, err)
	m.phase = phaseEnded
	m.again, m.attempts = 0, 0
}

// report moves the status forward and asks for it to be told. A status that says nothing new, or goes backwards, is dropped (I6).
func (m *Machine) report(now time.Time, state api.TaskState, message, err string) {
	if state < m.status.GetState() || ended(m.status.GetState()) {
		return
	}
	if state == m.status.GetState() && m.status.GetMessage() == message && m.status.GetErr() == err {
		return
	}
	m.set(timestamppb.New(now), state, message, err)
}

// tell reports what is new of the container. The state, and the time since which it is that, stay: "Running 5 minutes ago".
func (m *Machine) tell(message, err string) {
	m.set(m.status.GetTimestamp(), m.status.GetState(), message, err)
}

func (m *Machine) set(at *timestamppb.Timestamp, state api.TaskState, message, err string) {
	m.status = &api.TaskStatus{
		Timestamp: at, State: state, Message: message, Err: err, Container: proto.CloneOf(m.container), Readiness: proto.CloneOf(m.readiness),
	}
	m.effects = append(m.effects, Effect{Report: m.status})
}

// do begins an operation, unless the last one of its kind is still under way.
func (m *Machine) do(op Operation) {
	if m.underWay[op] {
		return
	}
	m.underWay[op] = true
	m.effects = append(m.effects, Effect{Do: op})
}

// wake asks for a Tick at the next time at which anything is to be done.
func (m *Machine) wake() {
	var next time.Time
	if m.again != 0 {
		next = m.retryAt
	}
	if m.phase == phaseRunning {
		next = earlier(next, earlier(m.refreshing.at, earlier(m.killAt, m.stopAt)))
	}
	if next.IsZero() || next.Equal(m.wakeAt) {
		return
	}
	m.wakeAt = next
	m.effects = append(m.effects, Effect{Wake: next})
}

func (m *Machine) stopWanted() bool {
	return m.unassigned || m.task.GetDesiredState() > api.TaskState_TASK_STATE_RUNNING
}

// ended says whether a state is one in which a task stays.
func ended(s api.TaskState) bool { return s > api.TaskState_TASK_STATE_RUNNING }

// grace returns the time that a task has between the stop signal and SIGKILL.
func grace(t *api.Task) time.Duration {
	d := t.GetSpec().GetContainer().GetStopGracePeriod()
	if d == nil {
		return defaultGrace
	}
	return min(max(d.AsDuration(), 0), maxGrace)
}

// earlier returns the earlier of two times, of which a zero one doesn't count.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
