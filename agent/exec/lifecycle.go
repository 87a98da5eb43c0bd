package exec

import (
	"context"
	"syscall"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/client"
)

// ControlNodeTask implements api.NodeTasksServer.
func (s *Server) ControlNodeTask(ctx context.Context, r *api.ControlNodeTaskRequest) (*api.ControlNodeTaskResponse, error) {
	var err error
	switch action := r.GetAction().(type) {
	case *api.ControlNodeTaskRequest_Pause:
		err = kinded(s.Runtime.Pause(ctx, r.GetTaskId()))
	case *api.ControlNodeTaskRequest_Unpause:
		err = kinded(s.Runtime.Resume(ctx, r.GetTaskId()))
	case *api.ControlNodeTaskRequest_Signal:
		err = kinded(s.Runtime.Kill(ctx, r.GetTaskId(), syscall.Signal(action.Signal)))
	default:
		err = fault.New(fault.Invalid, "the request does not say what to do: this node may be older than the manager")
	}
	return &api.ControlNodeTaskResponse{}, s.Answer("ControlNodeTask", err)
}

// ListNodeTaskProcesses implements api.NodeTasksServer.
func (s *Server) ListNodeTaskProcesses(ctx context.Context, r *api.ListNodeTaskProcessesRequest) (*api.ListNodeTaskProcessesResponse, error) {
	found, err := s.Runtime.Processes(ctx, r.GetTaskId())
	if err != nil {
		return nil, s.Answer("ListNodeTaskProcesses", kinded(err))
	}
	return &api.ListNodeTaskProcessesResponse{Processes: processes(found)}, nil
}

// processes tells of processes in the numbers of their container.
func processes(found []client.Process) []*api.TaskProcess {
	inner := make(map[int]int, len(found))
	for _, p := range found {
		inner[p.Pid] = p.Inner
	}
	out := make([]*api.TaskProcess, 0, len(found))
	for _, p := range found {
		out = append(out, &api.TaskProcess{
			Pid: int32(p.Inner), Parent: int32(inner[p.Parent]), HostPid: int32(p.Pid), Uid: p.UID, State: p.State,
			CpuTime: durationpb.New(p.CPU), Age: durationpb.New(p.Age), Resident: p.Resident, Command: p.Command,
		})
	}
	return out
}
