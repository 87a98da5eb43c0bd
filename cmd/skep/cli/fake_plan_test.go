package cli_test

import (
	"context"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/specdiff"
)

// PlanService says that what has another spec is replaced where it is, and that a new task goes nowhere.
func (f *fake) PlanService(_ context.Context, r *api.PlanServiceRequest) (*api.PlanServiceResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.outrun {
		f.outrun = false
		return nil, fault.New(fault.Conflict, "update out of sequence")
	}
	out := &api.PlanServiceResponse{}
	var old *api.ServiceSpec
	wanted := r.GetSpec()
	task := &api.PlannedTask{Slot: 1, Action: api.PlannedAction_PLANNED_ACTION_CREATE, Refusal: "no suitable node (2 nodes unavailable)"}
	if r.GetService() != "" {
		present, err := lookUp("service", f.services, serviceNamed, r.GetService())
		if err != nil {
			return nil, err
		}
		old, out.ServiceId = present.GetSpec(), present.GetId()
		if r.GetRollback() {
			if wanted = present.GetPreviousSpec(); wanted == nil {
				return nil, fault.New(fault.Precondition, "service %s does not have a previous spec", serviceNamed(present))
			}
		}
		task = &api.PlannedTask{
			Slot: 1, TaskId: "t1", Action: api.PlannedAction_PLANNED_ACTION_REPLACE, NodeId: "n1", Hostname: "one", ToNodeId: "n2", ToHostname: "two",
			Why: "changed: image", Step: 1,
		}
	}
	out.ServiceName, out.Spec = wanted.GetAnnotations().GetName(), wanted
	for _, d := range specdiff.Of(old, wanted) {
		out.Changes = append(out.Changes, &api.SpecChange{Field: d.Field, Old: d.Old, New: d.New})
	}
	if len(out.GetChanges()) == 0 {
		return out, nil
	}
	out.Tasks = []*api.PlannedTask{task}
	if old != nil {
		out.Update = &api.PlannedUpdate{Parallelism: 1}
	}
	return out, nil
}
