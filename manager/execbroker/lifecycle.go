package execbroker

import (
	"context"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/reach"
)

const (
	// callTime bounds how long a node may take: it waits some seconds itself for processes that can't be halted at once.
	callTime = 15 * time.Second
	// maxSignal is the highest signal's number (signal(7)).
	maxSignal = 64
)

// PauseTask implements api.TasksServer.
func (b *Broker) PauseTask(ctx context.Context, r *api.PauseTaskRequest) (*api.PauseTaskResponse, error) {
	action := &api.ControlNodeTaskRequest{Action: &api.ControlNodeTaskRequest_Pause{Pause: &api.TaskPause{}}}
	id, err := b.control(ctx, r.GetTask(), "paused", action)
	return &api.PauseTaskResponse{TaskId: id}, err
}

// UnpauseTask implements api.TasksServer.
func (b *Broker) UnpauseTask(ctx context.Context, r *api.UnpauseTaskRequest) (*api.UnpauseTaskResponse, error) {
	action := &api.ControlNodeTaskRequest{Action: &api.ControlNodeTaskRequest_Unpause{Unpause: &api.TaskUnpause{}}}
	id, err := b.control(ctx, r.GetTask(), "unpaused", action)
	return &api.UnpauseTaskResponse{TaskId: id}, err
}

// KillTask implements api.TasksServer.
func (b *Broker) KillTask(ctx context.Context, r *api.KillTaskRequest) (*api.KillTaskResponse, error) {
	n := r.GetSignal()
	if n < 1 || n > maxSignal {
		return nil, fault.New(fault.Invalid, "signal %d is not within 1 to %d", n, maxSignal)
	}
	name := unix.SignalName(unix.Signal(n))
	if name == "" {
		name = "signal " + strconv.Itoa(int(n))
	}
	action := &api.ControlNodeTaskRequest{Action: &api.ControlNodeTaskRequest_Signal{Signal: n}}
	id, err := b.control(ctx, r.GetTask(), "sent "+name, action)
	return &api.KillTaskResponse{TaskId: id}, err
}

// control has a task's node carry out an action, and gives the task's id.
func (b *Broker) control(ctx context.Context, task, summary string, action *api.ControlNodeTaskRequest) (string, error) {
	var id string
	err := b.ask(ctx, task, func(ctx context.Context, p place, node api.NodeTasksClient) error {
		id = p.task.GetId()
		b.cfg.About(ctx, Subject{TaskID: id, TaskName: p.name(), Summary: summary})
		action.TaskId = id
		_, err := node.ControlNodeTask(ctx, action)
		return err
	})
	return id, err
}

// ListTaskProcesses implements api.TasksServer.
func (b *Broker) ListTaskProcesses(ctx context.Context, r *api.ListTaskProcessesRequest) (*api.ListTaskProcessesResponse, error) {
	out := &api.ListTaskProcessesResponse{}
	err := b.ask(ctx, r.GetTask(), func(ctx context.Context, p place, node api.NodeTasksClient) error {
		answer, err := node.ListNodeTaskProcesses(ctx, &api.ListNodeTaskProcessesRequest{TaskId: p.task.GetId()})
		out.TaskId, out.Processes = p.task.GetId(), answer.GetProcesses()
		return err
	})
	return out, err
}

// ask calls a task's node.
func (b *Broker) ask(ctx context.Context, task string, call func(context.Context, place, api.NodeTasksClient) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	p, err := b.find(ctx, task)
	if err != nil {
		return err
	}
	conn, err := b.connect(ctx, p)
	if err != nil {
		return err
	}
	defer conn.Close()
	err = call(ctx, p, api.NewNodeTasksClient(conn))
	if status.Code(err) == codes.Unimplemented {
		return fault.New(fault.Precondition, "node %s of task %s runs an older version of Skep that can't do this: upgrade it", reach.Hostname(p.node), p.name())
	}
	return fault.FromStatus(err)
}
