package orchestrator

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
)

// apply lets one effect happen.
func (s *stage) apply(e Effect) {
	var stopped []*api.Task
	for _, d := range e.Desired {
		t := s.task(d.TaskID)
		if t.GetDesiredState() >= d.State {
			continue
		}
		if taskstate.Live(t) && !taskstate.Ended(t) && d.State > api.TaskState_TASK_STATE_RUNNING {
			stopped = append(stopped, t)
		}
		t = proto.CloneOf(t)
		t.DesiredState = d.State
		s.put(t)
	}
	switch {
	case e.Create != nil:
		s.create(*e.Create, stopped)
	case len(stopped) > 0:
		s.remove(stopped)
	}
	if e.Adopt != "" {
		t := proto.CloneOf(s.task(e.Adopt))
		t.SpecVersion = s.v.Service.GetSpecVersion()
		s.put(t)
		s.plan(t, api.PlannedAction_PLANNED_ACTION_STAY, "it has the spec that is gone back to")
	}
	if e.Status != nil {
		service := proto.CloneOf(s.v.Service)
		service.UpdateStatus = proto.CloneOf(e.Status)
		s.v.Service = service
		switch e.Status.GetState() {
		case api.UpdateState_UPDATE_STATE_PAUSED, api.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED:
			s.stops = e.Status.GetMessage()
		}
		if e.Restore {
			s.stops = e.Status.GetMessage()
		}
	}
}

// create makes a task, in the place of one that stops or goes on beside it for a while, if there is one.
func (s *stage) create(c Creation, stopped []*api.Task) {
	before := stopped
	if len(before) == 0 {
		for _, place := range s.slots[c.Slot] {
			if t := s.v.Tasks[place]; taskstate.Live(t) && !taskstate.Ended(t) {
				before = append(before, t)
			}
		}
	}
	id := fmt.Sprintf("%s.%d", s.v.Service.GetSpec().GetAnnotations().GetName(), c.Slot) // messages name tasks by it
	for s.planned[id] != nil {
		id += "'"
	}
	t := newTask(s.now, s.v.Service, id, c, s.grants)
	t.Status.State = api.TaskState_TASK_STATE_PENDING
	t.Meta = &api.Meta{CreatedAt: timestamppb.New(s.now), UpdatedAt: timestamppb.New(s.now)}
	if len(before) == 0 {
		p := &api.PlannedTask{Slot: c.Slot, Action: api.PlannedAction_PLANNED_ACTION_CREATE}
		s.order = append(s.order, p)
		s.planned[t.GetId()] = p
	} else {
		s.planned[t.GetId()] = s.plan(before[0], api.PlannedAction_PLANNED_ACTION_REPLACE, s.why(before[0]))
		s.remove(before[1:])
	}
	s.put(t)
}

// remove notes that tasks stop, unless another one is to take their place.
func (s *stage) remove(stopped []*api.Task) {
	for _, t := range stopped {
		if s.planned[t.GetId()] == nil {
			s.plan(t, api.PlannedAction_PLANNED_ACTION_REMOVE, s.whyRemoved(t))
		}
	}
}

// plan notes what becomes of a task that there is.
func (s *stage) plan(t *api.Task, action api.PlannedAction, why string) *api.PlannedTask {
	p := &api.PlannedTask{
		Slot: t.GetSlot(), TaskId: t.GetId(), NodeId: t.GetNodeId(), Hostname: s.hostname(t.GetNodeId()), Action: action, Why: why,
	}
	s.order = append(s.order, p)
	s.planned[t.GetId()] = p
	return p
}

// why says why a task is replaced.
func (s *stage) why(t *api.Task) string {
	switch {
	case t.GetSpecVersion() != s.v.Service.GetSpecVersion():
		return s.Because
	case s.v.Lost(t):
		return "its node is down or gone"
	case s.v.Drained(t):
		return "its node is drained"
	default:
		return "its node does not fit any more"
	}
}

// whyRemoved says why a task stops that nothing replaces.
func (s *stage) whyRemoved(t *api.Task) string {
	switch {
	case t.GetSpecVersion() != s.v.Service.GetSpecVersion() && taskstate.Job(s.v.Service.GetSpec()):
		return s.Because
	case t.GetBoundNodeId() != "":
		return "its node is none of the service's"
	default:
		return "there are to be fewer"
	}
}

// rest notes what becomes of the tasks that nothing happened to.
func (s *stage) rest(before []*api.Task) {
	var rest []*api.Task
	for _, t := range before {
		if taskstate.Live(t) && !taskstate.Ended(t) && s.planned[t.GetId()] == nil {
			rest = append(rest, t)
		}
	}
	slices.SortFunc(rest, func(a, b *api.Task) int {
		return cmp.Or(cmp.Compare(a.GetSlot(), b.GetSlot()), taskstate.Compare(a, b))
	})
	for _, t := range rest {
		old := t.GetSpecVersion() != s.v.Service.GetSpecVersion()
		switch {
		case old && s.stops != "":
			s.plan(t, api.PlannedAction_PLANNED_ACTION_STAY, "the update stops before")
		case old && !s.v.Away([]*api.Task{t}):
			s.plan(t, api.PlannedAction_PLANNED_ACTION_REPLACE, s.Because)
		default:
			s.plan(t, api.PlannedAction_PLANNED_ACTION_STAY, "")
		}
	}
}
