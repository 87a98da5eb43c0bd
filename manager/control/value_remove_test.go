package control_test

import (
	"fmt"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/storetest"
)

// A version goes alone when nothing has it; what was removed nobody can have again, and the others stay.
func TestRemoveSecret_OneVersion(t *testing.T) {
	s := newSwarm(t)
	s.createSecret(t, "db")
	s.createService(t, withSecret("pinned", 1))
	s.createService(t, withSecret("follows", 0))
	for i := 2; i <= 4; i++ {
		s.updateSecret(t, &api.ValueChange{Data: fmt.Append(nil, "value ", i)})
	}
	storetest.Create(t, s.store, &api.Task{
		Id: "t1", ServiceId: "follows", ServiceName: "follows", NodeId: "worker1", DesiredState: api.TaskState_TASK_STATE_RUNNING,
		Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING},
		Spec: &api.TaskSpec{Container: &api.ContainerSpec{Secrets: []*api.SecretReference{{
			SecretId: storetest.List[*api.Secret](t, s.store)[0].GetId(), Version: 3,
		}}}},
	})
	remove := func(key string) error {
		_, err := s.RemoveSecret(t.Context(), &api.RemoveSecretRequest{Secret: key})
		return err
	}
	wantFault(t, remove("db@4"), fault.Precondition,
		"secret 'db' is in use by the following service: follows: version 4 is the newest, which those have that follow: `skep secret update db` gives it another value first")
	wantFault(t, remove("db@1"), fault.Precondition, "secret version 'db@1' is in use by the following service: pinned")
	wantFault(t, remove("db@3"), fault.Precondition, "secret version 'db@3' is in use by tasks of follows: wait until they are replaced")
	wantFault(t, remove("db@9"), fault.NotFound, "secret db has no version 9")
	for _, key := range []string{"db@0", "db@", "db@x", "db@1@2"} {
		wantFault(t, remove(key), fault.Invalid, "write the number of a version, as in db@2")
	}
	wantFault(t, remove("other@1"), fault.NotFound, "other")
	if err := remove("db@2"); err != nil {
		t.Fatal(err)
	}
	var left []uint64
	got, err := s.GetSecret(t.Context(), &api.GetSecretRequest{Secret: "db"})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range got.GetSecret().GetVersions() {
		left = append(left, v.GetNumber())
	}
	if fmt.Sprint(left) != "[4 3 1]" {
		t.Errorf("left are %v, want 4, 3, 1", left)
	}
	_, err = s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: withSecret("late", 2)})
	wantFault(t, err, fault.Invalid, "secret db has no version 2")
	// Without services the newest stays all the same: numbers are never given twice.
	for _, name := range []string{"pinned", "follows"} {
		if _, err := s.RemoveService(t.Context(), &api.RemoveServiceRequest{Service: name}); err != nil {
			t.Fatal(err)
		}
	}
	wantFault(t, remove("db@4"), fault.Precondition, "version 4 of secret 'db' is the newest: `skep secret update db` gives it another value first, and `skep secret rm db` removes all")
	if err := remove("db@1"); err != nil {
		t.Error(err)
	}
}
