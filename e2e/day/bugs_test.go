package day

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/agent/task"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// bug is a planted bug: something that a node or a manager does wrong, at the edges of the simulation, so that a day must find it.
type bug string

const (
	earlyEnd    bug = "early-end"
	leftover    bug = "leftover"
	jobAgain    bug = "job-again"
	lostEnd     bug = "lost-end"
	deafNode    bug = "deaf-node"
	deafDrain   bug = "deaf-drain"
	deafLabel   bug = "deaf-label"
	lostScale   bug = "lost-scale"
	generous    bug = "generous"
	secretStays bug = "secret-stays"
	otherPlan   bug = "other-plan"
	lostEvent   bug = "lost-event"
	lostBeats   bug = "lost-beats"
)

// planted says of a bug what is wrong. Those that are quick are found within minutes of the day.
type planted struct {
	name  bug
	what  string
	quick bool
}

func bugs() []planted {
	return []planted{
		{earlyEnd, "a node says that a task has ended when it was only told to", true},
		{leftover, "a node keeps the containers of tasks that it forgets", false},
		{jobAgain, "the good end of a job's task is taken for a failure, now and then", true},
		{lostEnd, "a node does not tell that a task was stopped, now and then", false},
		{deafNode, "a node does not stop a task that it is told to, now and then", false},
		{deafDrain, "the availability of nodes is not changed", false},
		{deafLabel, "the labels of nodes are not changed", false},
		{lostScale, "a service is not scaled", false},
		{generous, "a node has less than it says", false},
		{otherPlan, "a plan has its tasks on another node", false},
		{lostBeats, "a manager answers heartbeats and forgets them", false},
		{lostEvent, "some events are not told", false},
		{secretStays, "a node keeps secrets that it needs no more", false},
	}
}

// executor puts the bugs of a node's containers before them.
func (b bug) executor(e *executor) task.Executor {
	switch b {
	case earlyEnd:
		return &hasty{executor: e, told: map[string]chan struct{}{}}
	case leftover:
		return hoarder{e}
	}
	return e
}

// hasty takes being told to end for the end.
type hasty struct {
	*executor
	mu   sync.Mutex
	told map[string]chan struct{} // guarded by mu; by task
}

func (h *hasty) toldTo(id string) chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.told[id] == nil {
		h.told[id] = make(chan struct{})
	}
	return h.told[id]
}

// Stop implements [task.Executor].
func (h *hasty) Stop(ctx context.Context, t *api.Task) error {
	close(h.toldTo(t.GetId()))
	return h.executor.Stop(ctx, t)
}

// Wait implements [task.Executor].
func (h *hasty) Wait(ctx context.Context, id string) (*api.ContainerStatus, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	told := h.toldTo(id)
	over := make(chan struct{})
	defer close(over)
	go func() {
		select {
		case <-told:
			cancel()
		case <-over:
		}
	}()
	c, err := h.executor.Wait(ctx, id)
	select {
	case <-told:
		return &api.ContainerStatus{ContainerId: id, ExitCode: stoppedCode}, nil
	default:
		return c, err
	}
}

// Release implements [task.Executor].
func (h *hasty) Release(ctx context.Context, id string) error {
	h.mu.Lock()
	h.executor.mu.Lock()
	runs := h.containers[id] != nil && h.containers[id].status.GetPid() != 0
	h.executor.mu.Unlock()
	h.mu.Unlock()
	if runs {
		return fault.New(fault.Unavailable, "it runs")
	}
	return h.executor.Release(ctx, id)
}

// hoarder keeps everything.
type hoarder struct{ *executor }

// Release implements [task.Executor].
func (hoarder) Release(context.Context, string) error { return nil }

// Remove implements [task.Executor].
func (hoarder) Remove(context.Context, string) error { return nil }

// report changes what a node tells of a task; nil is nothing.
func (b bug) report(e *executor, s *api.TaskStatus) *api.TaskStatus {
	switch {
	case b == jobAgain && s.GetState() == api.TaskState_TASK_STATE_COMPLETE && e.chance(0.2):
		s = proto.CloneOf(s)
		s.State = api.TaskState_TASK_STATE_FAILED
	case b == lostEnd && s.GetState() == api.TaskState_TASK_STATE_SHUTDOWN && e.chance(0.2):
		return nil
	}
	return s
}

// assign changes what a node is told.
func (b bug) assign(e *executor, changes []*api.AssignmentChange) (kept []*api.AssignmentChange) {
	for _, c := range changes {
		removed := c.GetAction() == api.AssignmentAction_ASSIGNMENT_ACTION_REMOVE
		switch {
		case b == secretStays && c.GetSecret() != nil && removed:
		case b == deafNode && c.GetTask().GetDesiredState() == api.TaskState_TASK_STATE_SHUTDOWN && e.chance(0.2):
		default:
			kept = append(kept, c)
		}
	}
	return kept
}

// describe changes what a node says that it has.
func (b bug) describe(d *api.NodeDescription) *api.NodeDescription {
	if b == generous {
		d.Resources.NanoCpus *= 4
	}
	return d
}

// unary changes what people ask for, and what they are told.
func (b bug) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	switch r := request.(type) {
	case *api.UpdateNodeRequest:
		if b == deafDrain {
			r.Spec.Availability = api.Availability_AVAILABILITY_ACTIVE
		}
		if b == deafLabel {
			r.Spec.Annotations = nil
		}
	case *api.HeartbeatRequest:
		if b == lostBeats {
			return &api.HeartbeatResponse{}, nil
		}
	case *api.UpdateServiceRequest:
		if b == lostScale && r.GetSpec().GetReplicated() != nil {
			r.Spec.Replicated.Replicas = 1
		}
	}
	response, err := handler(ctx, request)
	if plan, ok := response.(*api.PlanServiceResponse); ok && b == otherPlan && len(plan.GetTasks()) > 0 {
		for _, t := range plan.GetTasks()[1:] {
			t.ToNodeId = plan.GetTasks()[0].GetToNodeId()
		}
	}
	return response, err
}

// stream loses some of what people are told.
func (b bug) stream(server any, s grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	if b == lostEvent {
		s = &leaky{ServerStream: s}
	}
	return handler(server, s)
}

// leaky loses every fifth message with events.
type leaky struct {
	grpc.ServerStream
	sent int
}

// SendMsg implements grpc.ServerStream.
func (l *leaky) SendMsg(m any) error {
	if news, ok := m.(*api.WatchEventsResponse); ok && len(news.GetEvents()) > 0 {
		if l.sent++; l.sent%5 == 0 {
			return nil
		}
	}
	return l.ServerStream.SendMsg(m)
}

// A planted bug may go unnoticed for so many days of this length.
const (
	searches = 5
	searched = time.Hour
)
