package control_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/storetest"
)

func (s *swarm) rollback(t *testing.T) *api.Service {
	t.Helper()
	response, err := s.RollbackService(t.Context(), &api.RollbackServiceRequest{Service: "web"})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetService()
}

func TestRollbackService_ExchangesTheSpecs(t *testing.T) {
	s := newSwarm(t)
	first := s.createService(t, web())
	second := s.changeTo(t, func(spec *api.ServiceSpec) { spec.Task.Container.Args = []string{"second"} })
	back := s.rollback(t)
	if diff := cmp.Diff(first.GetSpec(), back.GetSpec(), protocmp.Transform()); diff != "" {
		t.Errorf("the spec after the rollback (-want +got):\n%s", diff)
	}
	if got := back.GetUpdateStatus(); got.GetState() != api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED || got.GetMessage() != "manually requested rollback" {
		t.Errorf("update status %v", got)
	}
	// Tasks of the first version stay, and going back is a change like others, to go back from.
	if back.GetSpecVersion() != 3 || back.GetRestoredVersion() != 1 || back.GetPreviousSpecVersion() != 2 {
		t.Errorf("version %d, restored %d, previous %d", back.GetSpecVersion(), back.GetRestoredVersion(), back.GetPreviousSpecVersion())
	}
	again := s.rollback(t)
	if diff := cmp.Diff(second.GetSpec(), again.GetSpec(), protocmp.Transform()); diff != "" || again.GetRestoredVersion() != 2 {
		t.Errorf("the spec after another rollback, of version %d (-want +got):\n%s", again.GetRestoredVersion(), diff)
	}
}

// Tasks of one version may have been placed by another rule: when that is to be as before, they can't stay.
func TestRollbackService_OfAPlacementAdoptsNobody(t *testing.T) {
	s := newSwarm(t)
	service := s.createService(t, web(func(spec *api.ServiceSpec) {
		spec.Task.Placement = &api.Placement{Constraints: []string{"node.id==worker1"}}
	}))
	storetest.Create(t, s.store, &api.Task{Id: "task", ServiceId: service.GetId(), NodeId: "worker1", DesiredState: api.TaskState_TASK_STATE_RUNNING})
	s.changeTo(t, func(spec *api.ServiceSpec) { spec.Task.Placement.Constraints = nil })
	storetest.Create(t, s.store, &api.Task{Id: "task2", ServiceId: service.GetId(), NodeId: "other", DesiredState: api.TaskState_TASK_STATE_RUNNING})
	if got := s.rollback(t); got.GetSpecVersion() != 2 || got.GetRestoredVersion() != 0 {
		t.Errorf("version %d, restored %d", got.GetSpecVersion(), got.GetRestoredVersion())
	}
}

func TestRollbackService_Refuses(t *testing.T) {
	s := newSwarm(t)
	s.createService(t, web())
	rollback := func(name string) error {
		_, err := s.RollbackService(t.Context(), &api.RollbackServiceRequest{Service: name})
		return err
	}
	wantFault(t, rollback("web"), fault.Precondition, "service web does not have a previous spec")
	wantFault(t, rollback("nope"), fault.NotFound, "service nope not found")
	// What was possible once need not be any more.
	s.createSecret(t, "db")
	s.changeTo(t, func(spec *api.ServiceSpec) { spec.Task.Container.Secrets = []*api.SecretReference{{SecretName: "db"}} })
	done := s.changeTo(t, func(spec *api.ServiceSpec) { spec.Task.Container.Secrets = nil })
	s.setUpdateState(t, done.GetId(), api.UpdateState_UPDATE_STATE_COMPLETED)
	s.changeTo(t, func(spec *api.ServiceSpec) { spec.Task.Container.Secrets = []*api.SecretReference{{SecretName: "db"}} })
	s.setUpdateState(t, done.GetId(), api.UpdateState_UPDATE_STATE_COMPLETED)
	s.changeTo(t, func(spec *api.ServiceSpec) { spec.Task.Container.Secrets = nil })
	if _, err := s.RemoveSecret(t.Context(), &api.RemoveSecretRequest{Secret: "db"}); err != nil {
		t.Fatal(err)
	}
	wantFault(t, rollback("web"), fault.Invalid, "secret not found: db")
}

// A job is not updated: it runs again, as it was.
func TestRollbackService_OfAJobRunsItAgain(t *testing.T) {
	s := newSwarm(t)
	s.createService(t, web(func(spec *api.ServiceSpec) {
		spec.Replicated, spec.ReplicatedJob = nil, &api.ReplicatedJob{TotalCompletions: 2}
	}))
	s.changeTo(t, withArgs("second"))
	back := s.rollback(t)
	if len(back.GetSpec().GetTask().GetContainer().GetArgs()) > 0 || back.GetSpecVersion() != 3 || back.GetRestoredVersion() != 0 || back.GetUpdateStatus() != nil {
		t.Errorf("got %v", back)
	}
	_, err := s.PauseServiceUpdate(t.Context(), &api.PauseServiceUpdateRequest{Service: "web"})
	wantFault(t, err, fault.Precondition, "service web is not being updated")
}

func TestPauseServiceUpdate(t *testing.T) {
	s := newSwarm(t)
	service := s.createService(t, web())
	pause := func(resume bool) (*api.Service, error) {
		response, err := s.PauseServiceUpdate(t.Context(), &api.PauseServiceUpdateRequest{Service: "web", Resume: resume})
		return response.GetService(), err
	}
	_, err := pause(false)
	wantFault(t, err, fault.Precondition, "service web is not being updated")
	_, err = pause(true)
	wantFault(t, err, fault.Precondition, "service web is not in an update that is paused")
	for from, to := range map[api.UpdateState]api.UpdateState{
		api.UpdateState_UPDATE_STATE_UPDATING:         api.UpdateState_UPDATE_STATE_PAUSED,
		api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED: api.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED,
	} {
		s.setUpdateState(t, service.GetId(), from)
		paused, err := pause(false)
		if err != nil || paused.GetUpdateStatus().GetState() != to {
			t.Errorf("%v paused: got %v, %v", from, paused.GetUpdateStatus(), err)
		}
		resumed, err := pause(true)
		if err != nil || resumed.GetUpdateStatus().GetState() != from || resumed.GetUpdateStatus().GetCountsFrom() == nil {
			t.Errorf("%v resumed: got %v, %v", to, resumed.GetUpdateStatus(), err)
		}
	}
}
