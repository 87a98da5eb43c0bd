package update

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/taskstate"
)

// phase is a slot's place in an update.
type phase int

const (
	dirty phase = iota
	moving
	settled
)

// New returns the loop; it runs on the leader only.
func New(cfg orchestrator.Config) (*orchestrator.Loop, error) {
	return orchestrator.New("update", Step, cfg)
}

// Step decides about all slots of one service.
func Step(now time.Time, v orchestrator.View) ([]orchestrator.Effect, time.Time) {
	if v.Service == nil {
		return nil, time.Time{}
	}
	p := survey(now, v)
	effects := slices.Clone(p.outdated)
	if status := p.status(now, v.Service); status != nil {
		effects = append(effects, orchestrator.Effect{Status: status})
	}
	for _, slot := range p.dirty[:min(p.budget(v.Service), len(p.dirty))] {
		effects = append(effects, replace(v, slot, p.slots[slot]))
	}
	if len(p.dirty) == 0 {
		p.wake = time.Time{}
	}
	return effects, p.wake
}

// progress is how far an update is.
type progress struct {
	slots   map[uint64][]*api.Task // all tasks, by slot
	dirty   []uint64               // in the order in which they are replaced
	moving  int
	cooling int       // settled within the delay
	wake    time.Time // when the first of them has cooled down
	// outdated tells old tasks to stop beside which a new one runs.
	outdated []orchestrator.Effect
}

func survey(now time.Time, v orchestrator.View) *progress {
	p := &progress{slots: orchestrator.Slots(v.Tasks)}
	for _, slot := range slices.Sorted(maps.Keys(p.slots)) {
		tasks := slices.DeleteFunc(slices.Clone(p.slots[slot]), func(t *api.Task) bool { return !taskstate.Kept(t) })
		if len(tasks) == 0 {
			continue
		}
		place, running := classify(v.Service, tasks)
		switch place {
		case dirty:
			p.dirty = append(p.dirty, slot)
		case moving:
			p.moving++
		case settled:
			p.settle(now, v.Service, tasks, running)
		}
	}
	// Slots that run nothing lose nothing: they go first.
	slices.SortStableFunc(p.dirty, func(a, b uint64) int { return cmp.Compare(running(p.slots[a]), running(p.slots[b])) })
	return p
}

// settle notes a slot that is done, and what of it is still to be stopped. current is its task that runs the present spec,
// or nil when that completed.
func (p *progress) settle(now time.Time, s *api.Service, tasks []*api.Task, current *api.Task) {
	if current == nil {
		return
	}
	var e orchestrator.Effect
	for _, t := range tasks {
		if taskstate.Live(t) && t.GetSpecVersion() != s.GetSpecVersion() {
			e.Desired = append(e.Desired, orchestrator.Desire{TaskID: t.GetId(), State: api.TaskState_TASK_STATE_SHUTDOWN})
		}
	}
	if len(e.Desired) > 0 {
		p.outdated = append(p.outdated, e)
	}
	cooled := current.GetMeta().GetUpdatedAt().AsTime().Add(s.GetSpec().GetUpdate().GetDelay().AsDuration())
	if s.GetUpdateStatus().GetState() != api.UpdateState_UPDATE_STATE_UPDATING || !cooled.After(now) {
		return
	}
	p.cooling++
	if p.wake.IsZero() || cooled.Before(p.wake) {
		p.wake = cooled
	}
}

// classify returns a slot's phase, and its task that runs the present spec, or nil.
func classify(s *api.Service, tasks []*api.Task) (phase, *api.Task) {
	place := dirty
	for _, t := range tasks {
		if t.GetSpecVersion() != s.GetSpecVersion() {
			continue
		}
		switch {
		case taskstate.Live(t) && t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING:
			return settled, t
		case !taskstate.Live(t) && t.GetStatus().GetState() == api.TaskState_TASK_STATE_COMPLETE && place == dirty:
			place = settled
		case taskstate.Live(t), place == dirty:
			place = moving
		}
	}
	return place, nil
}

func running(tasks []*api.Task) int {
	for _, t := range tasks {
		if taskstate.Live(t) && t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING {
			return 1
		}
	}
	return 0
}

// budget is the number of slots that may be replaced now.
func (p *progress) budget(s *api.Service) int {
	parallelism := uint64(1)
	if s.GetSpec().GetUpdate() != nil {
		parallelism = s.GetSpec().GetUpdate().GetParallelism()
	}
	if parallelism == 0 || parallelism > uint64(len(p.slots)) {
		parallelism = uint64(len(p.slots))
	}
	return max(int(parallelism)-p.moving-p.cooling, 0)
}

// status returns the update status that the service should get, or nil when it has the right one.
func (p *progress) status(now time.Time, s *api.Service) *api.UpdateStatus {
	old := s.GetUpdateStatus()
	updating := old.GetState() == api.UpdateState_UPDATE_STATE_UPDATING
	switch {
	case !updating && len(p.dirty) > 0:
		return &api.UpdateStatus{
			State: api.UpdateState_UPDATE_STATE_UPDATING, StartedAt: timestamppb.New(now), Message: "update in progress",
		}
	case updating && len(p.dirty)+p.moving == 0:
		return &api.UpdateStatus{
			State: api.UpdateState_UPDATE_STATE_COMPLETED, StartedAt: old.GetStartedAt(), CompletedAt: timestamppb.New(now),
			Message: "update completed",
		}
	default:
		return nil
	}
}

// replace makes a slot's task with the present spec.
func replace(v orchestrator.View, slot uint64, tasks []*api.Task) orchestrator.Effect {
	var e orchestrator.Effect
	var stop []*api.Task
	beside := predecessor(v.Service, tasks)
	for _, t := range tasks {
		if !taskstate.Live(t) || t == beside {
			continue
		}
		stop = append(stop, t)
		e.Desired = append(e.Desired, orchestrator.Desire{TaskID: t.GetId(), State: api.TaskState_TASK_STATE_SHUTDOWN})
	}
	e.Create = v.Replacement(slot, tasks, stop)
	return e
}

// predecessor returns the task that goes on while the new one starts, or nil: one, even when the update before was to end
// with two of them (I5).
func predecessor(s *api.Service, tasks []*api.Task) *api.Task {
	startFirst := s.GetSpec().GetUpdate().GetOrder() == api.UpdateOrder_UPDATE_ORDER_START_FIRST
	if !startFirst || len(s.GetSpec().GetEndpoint().GetPorts()) > 0 {
		return nil
	}
	var newest *api.Task
	for _, t := range tasks {
		if taskstate.Live(t) && t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING && (newest == nil || taskstate.Compare(t, newest) > 0) {
			newest = t
		}
	}
	return newest
}
