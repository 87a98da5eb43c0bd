package cli_test

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// RollbackService exchanges the present and the previous spec, as if that took no time.
func (f *fake) RollbackService(_ context.Context, r *api.RollbackServiceRequest) (*api.RollbackServiceResponse, error) {
	out := &api.RollbackServiceResponse{}
	return out, f.change(func() error {
		present, err := lookUp("service", f.services, serviceNamed, r.GetService())
		if err != nil {
			return err
		}
		if r.GetRevision() > 0 && r.GetRevision() != 3 {
			return fault.New(fault.NotFound, "service %s has no revision %d", serviceNamed(present), r.GetRevision())
		}
		if present.GetPreviousSpec() == nil {
			return fault.New(fault.Precondition, "service %s does not have a previous spec", serviceNamed(present))
		}
		s := proto.CloneOf(present)
		s.Spec, s.PreviousSpec = present.GetPreviousSpec(), present.GetSpec()
		s.SpecVersion++
		s.Meta = f.meta()
		s.UpdateStatus = &api.UpdateStatus{State: api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED, Message: "manually requested rollback"}
		out.Service = proto.CloneOf(s)
		s.UpdateStatus = &api.UpdateStatus{State: api.UpdateState_UPDATE_STATE_ROLLBACK_COMPLETED, Message: "rollback completed"}
		f.services[s.GetId()] = s
		f.fill(s)
		return nil
	})
}

// PauseServiceUpdate pauses any update, and resumes one to its end.
func (f *fake) PauseServiceUpdate(_ context.Context, r *api.PauseServiceUpdateRequest) (*api.PauseServiceUpdateResponse, error) {
	out := &api.PauseServiceUpdateResponse{}
	return out, f.change(func() error {
		present, err := lookUp("service", f.services, serviceNamed, r.GetService())
		if err != nil {
			return err
		}
		out.Service = proto.CloneOf(present)
		out.Service.Meta = f.meta()
		out.Service.UpdateStatus = &api.UpdateStatus{State: api.UpdateState_UPDATE_STATE_PAUSED, Message: "update paused by hand"}
		if r.GetResume() {
			out.Service.UpdateStatus = &api.UpdateStatus{State: api.UpdateState_UPDATE_STATE_COMPLETED, Message: "update completed"}
		}
		f.services[out.GetService().GetId()] = out.GetService()
		return nil
	})
}

// ListServiceRevisions knows the previous and the present spec.
func (f *fake) ListServiceRevisions(_ context.Context, r *api.ListServiceRevisionsRequest) (*api.ListServiceRevisionsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	present, err := lookUp("service", f.services, serviceNamed, r.GetService())
	if err != nil {
		return nil, err
	}
	return &api.ListServiceRevisionsResponse{Revisions: []*api.ServiceRevision{
		{Number: 3, Spec: present.GetPreviousSpec(), Meta: present.GetMeta(), ChangedBy: "uid 0"},
		{Number: 4, Spec: present.GetSpec(), Meta: present.GetMeta(), Restored: 2},
	}}, nil
}
