package control

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

// RollbackService puts the previous spec of a service in force again. It is admitted as any other spec, with what there is now.
func (s *Server) RollbackService(ctx context.Context, request *api.RollbackServiceRequest) (*api.RollbackServiceResponse, error) {
	id, err := requestID(ctx, "RollbackService")
	if err != nil {
		return nil, err
	}
	var warnings []string
	err = s.updateRevised(ctx, id, func(tx store.Tx, keep bool) error {
		old, err := resolve[*api.Service](tx, request.GetService())
		if err != nil {
			return err
		}
		service, found, err := rollBack(ctx, tx, old, request.GetRevision())
		warnings = found
		if err != nil || service == nil || !keep {
			return err
		}
		return keepRevision(ctx, tx, old, service, request.GetRevision())
	})
	if err != nil {
		return nil, err
	}
	service, err := current[*api.Service](s, request.GetService())
	if err != nil {
		return nil, err
	}
	return &api.RollbackServiceResponse{Service: service, Warnings: warnings}, nil
}

// rollBack puts the spec of a revision in force again, or with 0 the previous one. It returns the service, or nil if it has that spec.
func rollBack(ctx context.Context, tx store.Tx, old *api.Service, revision uint64) (*api.Service, []string, error) {
	spec, version, err := formerSpec(tx, old, revision)
	if err != nil {
		return nil, nil, err
	}
	warnings, err := admit(ctx, tx, spec, old.GetSpec())
	if err != nil {
		return nil, nil, err
	}
	service, err := goBack(tx, old, spec, version)
	return service, warnings, err
}

// goBack stores a former spec of a service, which had the version then, as its present one, if it is another. Tasks of that version
// stay.
func goBack(tx store.Tx, old *api.Service, spec *api.ServiceSpec, version uint64) (*api.Service, error) {
	if proto.Equal(old.GetSpec(), spec) {
		return nil, nil
	}
	replace, err := needsNewTasks(tx, old, spec)
	if err != nil {
		return nil, err
	}
	service := proto.CloneOf(old)
	service.Spec = spec
	switch {
	case replace:
		replaceTasks(service)
		if taskstate.Job(spec) {
			break // it has no updates, and so none to roll back
		}
		service.UpdateStatus.State, service.UpdateStatus.Message = api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED, "manually requested rollback"
		if version != old.GetSpecVersion() { // else there are none but those to be replaced
			service.RestoredVersion = version
		}
	case isOver(old.GetUpdateStatus()):
		service.UpdateStatus = nil
	}
	service.PreviousSpec, service.PreviousSpecVersion = old.GetSpec(), old.GetSpecVersion()
	return service, tx.Update(service)
}

// PauseServiceUpdate has an update or a rollback stop where it is, or go on.
func (s *Server) PauseServiceUpdate(ctx context.Context, request *api.PauseServiceUpdateRequest) (*api.PauseServiceUpdateResponse, error) {
	id, err := requestID(ctx, "PauseServiceUpdate")
	if err != nil {
		return nil, err
	}
	err = s.update(ctx, id, func(tx store.Tx) error {
		old, err := resolve[*api.Service](tx, request.GetService())
		if err != nil {
			return err
		}
		service := proto.CloneOf(old)
		if !move(service.GetUpdateStatus(), request.GetResume()) {
			what := "being updated"
			if request.GetResume() {
				what = "in an update that is paused"
			}
			return fault.New(fault.Precondition, "service %s is not %s: `skep service inspect --pretty %[1]s` shows its last update",
				old.GetSpec().GetAnnotations().GetName(), what)
		}
		return tx.Update(service)
	})
	if err != nil {
		return nil, err
	}
	service, err := current[*api.Service](s, request.GetService())
	if err != nil {
		return nil, err
	}
	return &api.PauseServiceUpdateResponse{Service: service}, nil
}

// move pauses or resumes an update, or reports that it can't be.
func move(status *api.UpdateStatus, resume bool) bool {
	switch state := status.GetState(); {
	case !resume && state == api.UpdateState_UPDATE_STATE_UPDATING:
		status.State, status.Message = api.UpdateState_UPDATE_STATE_PAUSED, "update paused by hand"
	case !resume && state == api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED:
		status.State, status.Message = api.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED, "rollback paused by hand"
	case resume && state == api.UpdateState_UPDATE_STATE_PAUSED:
		status.State, status.Message = api.UpdateState_UPDATE_STATE_UPDATING, "update in progress"
	case resume && state == api.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED:
		status.State, status.Message = api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED, "rollback in progress"
	default:
		return false
	}
	if resume {
		status.CountsFrom = timestamppb.New(time.Now())
	}
	return true
}
