package supervisor

import (
	"fmt"
	"time"

	"github.com/skep-io/skep/runtime/protocol"
)

// phase is the exact place in a container's life; protocol.Status is what clients see of it.
type phase int

const (
	phaseCreated phase = iota
	phaseStarting
	phaseFailing // the program could not be run; the process is about to end
	phaseRunning
	phaseExited
)

// machine decides what happens to a container. It does nothing itself: no clocks, no I/O.
type machine struct {
	phase phase
	state protocol.State
	// early is an exit that came while starting: the word on whether the program ran comes later, but belongs before.
	early *exited
}

// input is something that happened.
type input interface{ isInput() }

// startAsked: a client wants the program to run.
type startAsked struct{}

// executed: the program runs.
type executed struct{}

// executeFailed: the program could not be run.
type executeFailed struct {
	code int
	text string
}

// oomKilled: the kernel killed a process for want of memory.
type oomKilled struct{}

// exited: the process has ended.
type exited struct {
	code, signal int
	oom          bool
	unknown      bool   // nobody saw how
	text         string // or "": what to say of it
}

func (startAsked) isInput()    {}
func (executed) isInput()      {}
func (executeFailed) isInput() {}
func (oomKilled) isInput()     {}
func (exited) isInput()        {}

// effect is what to do about it: write the journal, through to the disk if durable, then announce.
type effect struct {
	durable bool
	event   protocol.Event
}

// created begins a container's life.
func created(now time.Time, id string, pid int) machine {
	return machine{state: protocol.State{ID: id, Status: protocol.Created, Pid: pid, CreatedAt: now}}
}

// step takes an input and gives the effects, in order. An error means that the input is not for this phase and
// nothing changed.
func (m *machine) step(now time.Time, in input) ([]effect, error) {
	switch in := in.(type) {
	case startAsked:
		if m.phase != phaseCreated {
			return nil, fmt.Errorf("%w: container %s is %s and can't be started", protocol.ErrState, m.state.ID, m.describe())
		}
		m.phase = phaseStarting
		return nil, nil
	case executed:
		return m.becomeRunning(now)
	case executeFailed:
		return m.becomeFailing(now, in)
	case oomKilled:
		if m.phase == phaseExited || m.state.OOMKilled {
			return nil, nil
		}
		m.state.OOMKilled = true
		return m.tell(now, protocol.EventOOM, false), nil
	case exited:
		if m.phase == phaseStarting {
			m.early = &in
			return nil, nil
		}
		return m.becomeExited(now, in)
	default:
		return nil, fmt.Errorf("container %s: unknown input %T", m.state.ID, in)
	}
}

// describe names the phase for people.
func (m *machine) describe() string {
	if m.phase == phaseStarting || m.phase == phaseFailing {
		return "starting"
	}
	return string(m.state.Status)
}

func (m *machine) tell(now time.Time, t protocol.EventType, durable bool) []effect {
	return []effect{{durable: durable, event: protocol.Event{Type: t, Time: now, State: m.state}}}
}

func (m *machine) becomeRunning(now time.Time) ([]effect, error) {
	if m.phase != phaseStarting {
		return nil, fmt.Errorf("container %s runs its program while %s", m.state.ID, m.describe())
	}
	m.phase = phaseRunning
	m.state.Status = protocol.Running
	m.state.StartedAt = now
	return m.settle(now, m.tell(now, protocol.EventRunning, false))
}

func (m *machine) becomeFailing(now time.Time, in executeFailed) ([]effect, error) {
	if m.phase != phaseStarting {
		return nil, fmt.Errorf("container %s fails to start while %s", m.state.ID, m.describe())
	}
	m.phase = phaseFailing
	m.state.ExitCode, m.state.Error = in.code, in.text
	return m.settle(now, nil)
}

// settle adds the exit that came too early.
func (m *machine) settle(now time.Time, effects []effect) ([]effect, error) {
	if m.early == nil {
		return effects, nil
	}
	more, err := m.becomeExited(now, *m.early)
	m.early = nil
	return append(effects, more...), err
}

func (m *machine) becomeExited(now time.Time, in exited) ([]effect, error) {
	if m.phase == phaseExited {
		return nil, fmt.Errorf("container %s exits twice", m.state.ID)
	}
	if m.phase != phaseFailing { // then the code and the text are why it failed
		m.state.ExitCode, m.state.Signal, m.state.Error, m.state.Unknown = in.code, in.signal, in.text, in.unknown
	}
	if m.phase == phaseCreated && in.text == "" {
		m.state.Error = "ended before it was started"
	}
	m.phase = phaseExited
	m.state.Status = protocol.Exited
	m.state.Pid = 0
	m.state.OOMKilled = m.state.OOMKilled || in.oom
	m.state.FinishedAt = now
	return m.tell(now, protocol.EventExited, true), nil
}
