package control_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/storetest"
)

// withSecretInPlace is a service whose tasks get new values of db in their files.
func withSecretInPlace(name string, change func(*api.SecretReference)) *api.ServiceSpec {
	spec := withSecret(name, 0)
	r := spec.Task.Container.Secrets[0]
	r.OnChange, r.Signal = api.OnChange_ON_CHANGE_SIGNAL, "HUP"
	if change != nil {
		change(r)
	}
	return spec
}

// A new value changes nothing of a service whose tasks get it in their files, nor what that goes back to; which task has which value its
// node says.
func TestUpdateSecret_InPlace(t *testing.T) {
	s := newSwarm(t)
	s.createSecret(t, "db")
	s.createService(t, withSecretInPlace("live", nil))
	got := s.updateSecret(t, &api.ValueChange{Data: []byte("value 2")})
	if len(got.GetServices()) > 0 || !slices.Equal(got.GetRewritten(), []string{"live"}) {
		t.Errorf("replaced are %v, rewritten %v", got.GetServices(), got.GetRewritten())
	}
	service, r := s.reference(t, "live")
	if r.GetVersion() != 0 || service.GetSpecVersion() != 1 || service.GetUpdateStatus() != nil {
		t.Errorf("the service has version %d, spec %d, status %v", r.GetVersion(), service.GetSpecVersion(), service.GetUpdateStatus())
	}
	id := r.GetSecretId()
	for i, received := range [][]*api.ReceivedValue{{{Id: id, Version: 1}}, {{Id: id, Version: 2}}, {{Id: id, Version: 99}}, nil} {
		storetest.Create(t, s.store, &api.Task{
			Id: fmt.Sprintf("t%d", i+1), ServiceId: service.GetId(), ServiceName: "live", Slot: uint64(i + 1), NodeId: fmt.Sprintf("worker%d", i+1),
			DesiredState: api.TaskState_TASK_STATE_RUNNING, Spec: service.GetSpec().GetTask(),
			Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING, Container: &api.ContainerStatus{Values: received}},
		})
	}
	shown, err := s.GetSecret(t.Context(), &api.GetSecretRequest{Secret: "db"})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"2 [live] [live.2] 1", "1 [] [live.1] 1"} {
		v := shown.GetSecret().GetVersions()[i]
		if got := fmt.Sprint(v.GetNumber(), v.GetServices(), v.GetTasks(), len(v.GetNodes())); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestCreateService_RefusesWhatCanNotBeDoneOnAChange(t *testing.T) {
	s := newSwarm(t)
	s.createSecret(t, "db")
	for text, change := range map[string]func(*api.SecretReference){
		"never changes":          func(r *api.SecretReference) { r.Version, r.Pinned = 1, true },
		"invalid signal: NOSUCH": func(r *api.SecretReference) { r.Signal = "NOSUCH" },
		"invalid signal: ":       func(r *api.SecretReference) { r.Signal = "" },
		"is sent with":           func(r *api.SecretReference) { r.OnChange = api.OnChange_ON_CHANGE_NONE },
		"no value that this":     func(r *api.SecretReference) { r.OnChange = 77 },
	} {
		_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: withSecretInPlace("live", change)})
		wantFault(t, err, fault.Invalid, text)
	}
}
