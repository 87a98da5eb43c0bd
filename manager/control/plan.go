package control

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/specdiff"
	"github.com/skep-io/skep/store"
)

// maxPlanned bounds how many tasks a plan tells of: about 256 KiB.
const maxPlanned = 1000

// Planner knows what the leader's loops make of a service.
type Planner interface {
	// Plan says what becomes of a service's tasks, as the snapshot has them, once the service is stored as it is given, and how those of
	// another spec are replaced. because says why they are.
	Plan(ctx context.Context, tx store.ReadTx, service *api.Service, because string) ([]*api.PlannedTask, *api.PlannedUpdate, error)
}

// errPlanned ends a transaction that is not to be committed.
var errPlanned = errors.New("it was only planned")

// planned is a change of a service that was made in a transaction without an end.
type planned struct {
	old, service *api.Service // old is nil for a new one; service is nil where nothing changes
	warnings     []string
}

// PlanService says what a change would do. It makes the change as the call does that it is about, in a transaction that it then drops.
func (s *Server) PlanService(ctx context.Context, request *api.PlanServiceRequest) (*api.PlanServiceResponse, error) {
	id, err := requestID(ctx, "PlanService")
	if err != nil {
		return nil, err
	}
	if err := checkPlan(request); err != nil {
		return nil, err
	}
	var p planned
	err = s.updateWithImage(ctx, id, func(tx store.Tx) (err error) {
		if p, err = plan(ctx, tx, id, request); err != nil {
			return err
		}
		return errPlanned
	})
	if !errors.Is(err, errPlanned) {
		return nil, err
	}
	response := &api.PlanServiceResponse{
		ServiceId: p.old.GetId(), ServiceName: p.old.GetSpec().GetAnnotations().GetName(), Spec: p.old.GetSpec(), Warnings: p.warnings,
	}
	if p.service == nil {
		return response, nil
	}
	response.Spec = p.service.GetSpec()
	differences := specdiff.Of(p.old.GetSpec(), p.service.GetSpec())
	if p.old == nil {
		response.ServiceName = request.GetSpec().GetAnnotations().GetName()
	}
	for _, d := range differences {
		if p.old == nil && response.GetServiceName() == "" && d.Field == "annotations.name" {
			continue
		}
		response.Changes = append(response.Changes, &api.SpecChange{Field: d.Field, Old: d.Old, New: d.New})
	}
	err = s.Store.View(func(tx store.ReadTx) (err error) {
		response.Tasks, response.Update, err = s.Planner.Plan(ctx, tx, p.service, "changed: "+strings.Join(reasons(differences), ", "))
		return err
	})
	if err != nil {
		return nil, storeFault(err)
	}
	if !slices.ContainsFunc(response.GetTasks(), func(t *api.PlannedTask) bool { return t.GetAction() == api.PlannedAction_PLANNED_ACTION_REPLACE }) {
		response.Update = nil
	}
	if n := len(response.GetTasks()); n > maxPlanned {
		response.TasksLeftOut, response.Tasks = uint32(n-maxPlanned), response.GetTasks()[:maxPlanned]
	}
	return response, nil
}

// checkPlan refuses a request that is two, or none.
func checkPlan(request *api.PlanServiceRequest) error {
	switch {
	case request.GetRollback() && request.GetSpec() != nil:
		return fault.New(fault.Invalid, "rollback: a change is a rollback, or it has a spec")
	case !request.GetRollback() && request.GetSpec() == nil:
		return fault.New(fault.Invalid, "spec: the service's spec is missing")
	default:
		return nil
	}
}

// plan makes a change in a transaction.
func plan(ctx context.Context, tx store.Tx, id string, request *api.PlanServiceRequest) (p planned, err error) {
	if request.GetService() == "" && !request.GetRollback() {
		p.service, p.warnings, err = create(ctx, tx, id, request.GetSpec())
		return p, err
	}
	if p.old, err = resolve[*api.Service](tx, request.GetService()); err != nil {
		return p, err
	}
	if request.GetRollback() {
		p.service, p.warnings, err = rollBack(ctx, tx, p.old, request.GetRevision())
	} else {
		p.service, p.warnings, err = change(ctx, tx, p.old, request.GetVersion(), request.GetSpec())
	}
	return p, err
}

// reasons names the changed fields because of which tasks are replaced, without the beginnings that they share.
func reasons(differences []specdiff.Difference) (fields []string) {
	for _, field := range specdiff.Fields(differences) {
		if !strings.HasPrefix(field, "task.") && !strings.HasPrefix(field, "endpoint.") {
			continue
		}
		fields = append(fields, strings.TrimPrefix(strings.TrimPrefix(field, "task."), "container."))
	}
	return fields
}
