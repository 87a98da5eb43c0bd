package control

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

// maxPlacings bounds what one call explains.
const maxPlacings = 16

// PlacementExplainer knows how the scheduler decides.
type PlacementExplainer interface {
	// Explain says of each task which nodes would take it, as far as the snapshot tells. The tasks need not be in it.
	Explain(ctx context.Context, tx store.ReadTx, tasks []*api.Task) ([]*api.Placing, error)
}

// ExplainPlacement implements api.ControlServer.
func (s *Server) ExplainPlacement(ctx context.Context, request *api.ExplainPlacementRequest) (*api.ExplainPlacementResponse, error) {
	response := &api.ExplainPlacementResponse{}
	return response, s.view(ctx, func(tx store.ReadTx) error {
		all, err := store.List[*api.Task](tx)
		if err != nil {
			return err
		}
		subjects, err := subjectsOf(tx, request.GetTarget(), all)
		if err != nil {
			return err
		}
		if len(subjects) > maxPlacings {
			response.LeftOut, subjects = uint32(len(subjects)-maxPlacings), subjects[:maxPlacings]
		}
		if response.Placings, err = s.Placement.Explain(ctx, tx, subjects); err != nil {
			return err
		}
		for _, p := range response.GetPlacings() {
			if err := describe(tx, p, all); err != nil {
				return err
			}
		}
		return nil
	})
}

// describe adds to a placing what it is part of.
func describe(tx store.ReadTx, p *api.Placing, all []*api.Task) error {
	service, err := store.Get[*api.Service](tx, p.GetServiceId())
	if err != nil && !errors.Is(err, store.ErrNotFound) { // of one that is gone, tasks may still end
		return err
	}
	if !slices.ContainsFunc(all, func(t *api.Task) bool { return t.GetId() == p.GetTaskId() }) {
		p.TaskId = ""
	}
	var tasks []*api.Task
	for _, t := range all {
		if t.GetServiceId() != p.GetServiceId() {
			continue
		}
		tasks = append(tasks, t)
		if waitsForNode(t) {
			p.Waiting++
		}
	}
	p.Failures, p.FailuresLeftOut = failuresOf(service, tasks)
	return nil
}

// waitsForNode reports whether a task is to run and has no node.
func waitsForNode(t *api.Task) bool {
	return taskstate.Live(t) && !taskstate.Ended(t) && t.GetNodeId() == ""
}

// subjectsOf returns the tasks that a target is about: of a service those that wait, or one that would be its next.
func subjectsOf(tx store.ReadTx, target string, all []*api.Task) ([]*api.Task, error) {
	if target == "" {
		return onePerService(all), nil
	}
	service, err := resolve[*api.Service](tx, target)
	if fault.KindOf(err) == fault.NotFound {
		tasks, err := tasksOf(tx, target)
		tasks = slices.DeleteFunc(tasks, func(t *api.Task) bool { return !taskstate.Live(t) || taskstate.Ended(t) })
		if err == nil && len(tasks) == 0 {
			return nil, fault.New(fault.Precondition, "task %s has ended: ask about its service", clip(target))
		}
		return tasks, err
	}
	if err != nil {
		return nil, err
	}
	var waiting []*api.Task
	for _, t := range all {
		if t.GetServiceId() == service.GetId() && waitsForNode(t) && (len(waiting) == 0 || t.GetBoundNodeId() != "") {
			waiting = append(waiting, t)
		}
	}
	if len(waiting) > 0 {
		return waiting, nil
	}
	next, err := nextTask(tx, service)
	return []*api.Task{next}, err
}

// onePerService returns a task that waits of each service that has one, ordered by the services' names.
func onePerService(all []*api.Task) []*api.Task {
	seen := map[string]bool{}
	var out []*api.Task
	for _, t := range all {
		if waitsForNode(t) && !seen[t.GetServiceId()] {
			seen[t.GetServiceId()] = true
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b *api.Task) int {
		return cmp.Or(strings.Compare(a.GetServiceName(), b.GetServiceName()), strings.Compare(a.GetServiceId(), b.GetServiceId()))
	})
	return out
}

// nextTask returns the task that the service would get if it were to have one more.
func nextTask(tx store.ReadTx, service *api.Service) (*api.Task, error) {
	t := taskstate.New(service, 0, "", api.TaskState_TASK_STATE_RUNNING)
	t.Status.State = api.TaskState_TASK_STATE_PENDING
	grants, err := grantsOf(tx, service)
	for _, grant := range grants {
		t.Grants = append(t.Grants, &api.Grant{Id: grant.GetId(), Spec: proto.CloneOf(grant.GetSpec())})
	}
	return t, err
}
