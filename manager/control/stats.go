package control

import (
	"context"
	"errors"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/lookup"
	"github.com/skep-io/skep/store"
)

// Limits of ReadStats.
const (
	maxStatsTargets = 256
	// maxStatsTasks bounds an answer: 4096 tasks are about 1 MiB.
	maxStatsTasks = 4096
)

// StatsReader asks the nodes what tasks have used.
type StatsReader interface {
	// ReadStats asks each node of the tasks, within a few seconds. Nodes has them by id.
	ReadStats(ctx context.Context, tasks []*api.Task, nodes map[string]*api.Node) *api.ReadStatsResponse
}

// ReadStats implements api.ControlServer.
func (s *Server) ReadStats(ctx context.Context, request *api.ReadStatsRequest) (*api.ReadStatsResponse, error) {
	if n := len(request.GetTargets()); n > maxStatsTargets {
		return nil, fault.New(fault.Invalid, "%d services and tasks are too many: at most %d are allowed", n, maxStatsTargets)
	}
	var tasks []*api.Task
	nodes := map[string]*api.Node{}
	err := s.view(ctx, func(tx store.ReadTx) (err error) {
		if tasks, err = targetsOf(tx, request.GetTargets()); err != nil {
			return err
		}
		for _, t := range tasks {
			if nodes[t.GetNodeId()] != nil {
				continue
			}
			node, err := store.Get[*api.Node](tx, t.GetNodeId())
			if errors.Is(err, store.ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			nodes[node.GetId()] = node
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(tasks) > maxStatsTasks {
		return nil, fault.New(fault.Exhausted, "%d tasks run: name services or tasks, at most %d at a time", len(tasks), maxStatsTasks)
	}
	return s.Stats.ReadStats(ctx, tasks, nodes), nil
}

// targetsOf returns the tasks that run of those that are meant, each once.
func targetsOf(tx store.ReadTx, targets []string) ([]*api.Task, error) {
	if len(targets) == 0 {
		all, err := store.List[*api.Task](tx)
		return running(all, map[string]bool{}), err
	}
	var out []*api.Task
	seen := map[string]bool{}
	for _, target := range targets {
		meant, err := tasksOf(tx, target)
		if err != nil {
			return nil, err
		}
		out = append(out, running(meant, seen)...)
	}
	return out, nil
}

// tasksOf returns the tasks of a service by its name or id, of one of its slots (web.1), or a task by its id.
func tasksOf(tx store.ReadTx, target string) ([]*api.Task, error) {
	service, err := resolve[*api.Service](tx, target)
	if err == nil {
		return store.List[*api.Task](tx, store.ByService(service.GetId()))
	}
	if fault.KindOf(err) != fault.NotFound {
		return nil, err
	}
	task, err := resolve[*api.Task](tx, target)
	if err == nil {
		return []*api.Task{task}, nil
	}
	if fault.KindOf(err) != fault.NotFound {
		return nil, err
	}
	return lookup.InSlot(tx, target)
}

// running returns the tasks that run and are to run, but for those that were seen. Those that are to end include what was lost with a
// node and has been replaced.
func running(all []*api.Task, seen map[string]bool) []*api.Task {
	var out []*api.Task
	for _, t := range all {
		if t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING && t.GetDesiredState() <= api.TaskState_TASK_STATE_RUNNING && !seen[t.GetId()] {
			seen[t.GetId()] = true
			out = append(out, t)
		}
	}
	return out
}
