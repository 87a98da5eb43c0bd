package orchestrator

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/eligible"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

// maxLooks bounds how many looks at a task a rehearsal takes: an update of 1,000 tasks one by one, which is a second of a processor.
const maxLooks = 1 << 20

// Placer chooses nodes while a rehearsal goes on, as the scheduler does. It knows the tasks of the store.
type Placer interface {
	// Place takes in what became of tasks, and says where those go that wait.
	Place(now time.Time, changed []*api.Task) []Placed
}

// Placed is where a task goes, or why nowhere.
type Placed struct {
	TaskID  string
	NodeID  string // empty is nowhere
	Refusal string
}

// Rehearsal is what cores would do about a service.
type Rehearsal struct {
	// Service is as it would be in the store, with the status of an update that begins. It need not be there. It is not changed.
	Service *api.Service
	// Cores are those of the loops that create tasks and tell them to stop.
	Cores  []Core
	Placer Placer
	// Because says why tasks of another spec are replaced.
	Because string
}

// Rehearsed is what came of it.
type Rehearsed struct {
	// Tasks are those that something happens to in that order, then the others by slot.
	Tasks []*api.PlannedTask
	// Took is how long it takes when tasks start and stop at once; 0 as well where that is too far ahead.
	Took time.Duration
	// Stops says why an update stops before its end, or is empty.
	Stops string
}

// Run lets the cores decide, again and again, on a copy of the service's tasks, in a time of its own, in which tasks start and stop as
// soon as they are told to: what the loops would do if all goes well, as far as the snapshot tells. Nothing is written. It ends early
// with ctx's error.
func (r Rehearsal) Run(ctx context.Context, tx store.ReadTx, now time.Time) (Rehearsed, error) {
	v, err := ReadView(tx, r.Service.GetId(), 0)
	if err != nil {
		return Rehearsed{}, err
	}
	v.Service, v.Tasks = proto.CloneOf(r.Service), slices.Clone(v.Tasks)
	if taskstate.EveryNode(v.Service.GetSpec()) {
		if v.Eligible, err = eligible.Read(tx, v.Service); err != nil {
			return Rehearsed{}, err
		}
	}
	s := &stage{Rehearsal: r, now: now, v: v, planned: map[string]*api.PlannedTask{}, places: map[string]int{}, slots: map[uint64][]int{}}
	if s.grants, err = grantsOf(tx, v.Service); err != nil {
		return Rehearsed{}, err
	}
	return s.play(ctx, slices.Clone(v.Tasks))
}

// stage is a rehearsal that is under way.
type stage struct {
	Rehearsal
	now     time.Time
	v       View
	grants  []*api.Grant
	places  map[string]int              // of tasks in v.Tasks, by id
	slots   map[uint64][]int            // the same places, by slot
	planned map[string]*api.PlannedTask // by id, also that of a task which takes the place of another
	order   []*api.PlannedTask
	step    uint32
	looks   int
	changed []*api.Task
	stops   string
}

// play lets the cores decide until they want nothing any more. before are the tasks that there are.
func (s *stage) play(ctx context.Context, before []*api.Task) (Rehearsed, error) {
	began := s.now
	for i, t := range s.v.Tasks {
		s.enter(t, i)
	}
	s.settle(before)
	for s.stops == "" && s.looks < maxLooks {
		if err := context.Cause(ctx); err != nil {
			return Rehearsed{}, err
		}
		acted, wake := s.round()
		if acted {
			continue
		}
		if !wake.After(s.now) {
			break
		}
		s.now = wake
	}
	out := Rehearsed{Took: s.now.Sub(began), Stops: s.stops}
	if s.looks >= maxLooks {
		out.Took = 0
	}
	s.rest(before)
	out.Tasks = s.order
	return out, nil
}

// round asks every core once, and lets happen what they want.
func (s *stage) round() (acted bool, wake time.Time) {
	moves := len(s.order)
	for _, core := range s.Cores {
		effects, at := core(s.now, s.v)
		s.looks += len(s.v.Tasks) + 1
		if wake.IsZero() || !at.IsZero() && at.Before(wake) {
			wake = at
		}
		for _, e := range effects {
			acted = true
			s.apply(e)
		}
	}
	if len(s.order) > moves {
		s.step++
		for _, p := range s.order[moves:] {
			if p.GetAction() != api.PlannedAction_PLANNED_ACTION_STAY {
				p.Step = s.step
			}
		}
	}
	if !acted {
		return false, wake
	}
	// A new task is placed while the one before it still has its room, and again when it has not.
	s.place()
	s.settle(s.v.Tasks)
	s.place()
	return true, wake
}

// put replaces a task, or adds it.
func (s *stage) put(t *api.Task) {
	i, known := s.places[t.GetId()]
	if !known {
		i = len(s.v.Tasks)
		s.enter(t, i)
		s.v.Tasks = append(s.v.Tasks, nil)
	}
	s.v.Tasks[i] = t
	s.changed = append(s.changed, t)
}

// enter notes where a task is.
func (s *stage) enter(t *api.Task, place int) {
	s.places[t.GetId()] = place
	s.slots[t.GetSlot()] = append(s.slots[t.GetSlot()], place)
}

func (s *stage) task(id string) *api.Task { return s.v.Tasks[s.places[id]] }

// settle lets all tasks get to where they are told to be, if they have a node.
func (s *stage) settle(tasks []*api.Task) {
	for _, t := range slices.Clone(tasks) {
		state := api.TaskState_TASK_STATE_SHUTDOWN
		switch {
		case taskstate.Ended(t):
			continue
		case taskstate.Ready(t), taskstate.Live(t) && (t.GetNodeId() == "" || s.v.Lost(t)):
			continue
		case taskstate.Live(t):
			state = api.TaskState_TASK_STATE_RUNNING
		}
		t = proto.CloneOf(t)
		t.Status.State = state
		if state == api.TaskState_TASK_STATE_RUNNING {
			t.DesiredState, t.Status.RunningAt = state, timestamppb.New(s.now)
			t.Status.Readiness = nil // it will be ready
		} else {
			t.Status.EndedAt = timestamppb.New(s.now)
		}
		s.put(t)
	}
}

// place asks for nodes.
func (s *stage) place() {
	changed := s.changed
	s.changed = nil
	for _, found := range s.Placer.Place(s.now, changed) {
		if _, ours := s.places[found.TaskID]; !ours {
			continue
		}
		p := s.planned[found.TaskID]
		if p != nil {
			p.Refusal = found.Refusal
		}
		t := proto.CloneOf(s.task(found.TaskID))
		t.Status.Err = found.Refusal
		if found.NodeID == "" {
			s.v.Tasks[s.places[t.GetId()]] = t // no news for who said so
			continue
		}
		t.NodeId, t.Status.State = found.NodeID, api.TaskState_TASK_STATE_ASSIGNED
		s.put(t)
		if p != nil {
			p.ToNodeId, p.ToHostname = found.NodeID, s.hostname(found.NodeID)
		}
	}
	s.settle(s.changed)
}

func (s *stage) hostname(id string) string { return s.v.Node(id).GetDescription().GetHostname() }
