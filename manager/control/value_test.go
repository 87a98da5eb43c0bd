package control_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/storetest"
)

// reference returns the reference of a service's first secret.
func (s *swarm) reference(t *testing.T, service string) (*api.Service, *api.SecretReference) {
	t.Helper()
	got, err := s.GetService(t.Context(), &api.GetServiceRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	return got.GetService(), got.GetService().GetSpec().GetTask().GetContainer().GetSecrets()[0]
}

func (s *swarm) updateSecret(t *testing.T, change *api.ValueChange) *api.UpdateSecretResponse {
	t.Helper()
	response, err := s.UpdateSecret(t.Context(), &api.UpdateSecretRequest{Secret: "db", Change: change})
	if err != nil {
		t.Fatal(err)
	}
	if len(response.GetSecret().GetSpec().GetData()) > 0 {
		t.Error("the answer has the value")
	}
	return response
}

// withSecret is a service with db, or with a version of it.
func withSecret(name string, version uint64) *api.ServiceSpec {
	return web(func(spec *api.ServiceSpec) {
		spec.Annotations.Name = name
		spec.Task.Container.Secrets = []*api.SecretReference{{SecretName: "db", Version: version, Pinned: version > 0}}
	})
}

// A new value replaces the tasks of the services that follow, and of no others; what they go back to when they are rolled back has the
// former value.
func TestUpdateSecret_MovesWhoFollows(t *testing.T) {
	s := newSwarm(t)
	s.createSecret(t, "db")
	s.createService(t, withSecret("follows", 0))
	s.createService(t, withSecret("pinned", 1))
	got := s.updateSecret(t, &api.ValueChange{Data: []byte("value 2")})
	if got.GetSecret().GetVersion() != 2 || !slices.Equal(got.GetServices(), []string{"follows"}) {
		t.Errorf("got version %d, services %v; want 2, follows", got.GetSecret().GetVersion(), got.GetServices())
	}
	follows, r := s.reference(t, "follows")
	if r.GetVersion() != 2 || follows.GetSpecVersion() != 2 || follows.GetUpdateStatus() == nil {
		t.Errorf("who follows has version %d, spec %d, status %v", r.GetVersion(), follows.GetSpecVersion(), follows.GetUpdateStatus())
	}
	if before := follows.GetPreviousSpec().GetTask().GetContainer().GetSecrets()[0].GetVersion(); before != 1 {
		t.Errorf("a rollback goes to version %d, want 1", before)
	}
	pinned, r := s.reference(t, "pinned")
	if r.GetVersion() != 1 || pinned.GetSpecVersion() != 1 {
		t.Errorf("who is pinned has version %d, spec %d", r.GetVersion(), pinned.GetSpecVersion())
	}
	// The same value again is no new one, and labels make none.
	if got := s.updateSecret(t, &api.ValueChange{Data: []byte("value 2")}); got.GetSecret().GetVersion() != 2 {
		t.Errorf("the same value has version %d", got.GetSecret().GetVersion())
	}
	got = s.updateSecret(t, &api.ValueChange{LabelAdd: map[string]string{"a": "b"}})
	if got.GetSecret().GetVersion() != 2 || len(got.GetServices()) > 0 || got.GetSecret().GetSpec().GetAnnotations().GetLabels()["a"] != "b" {
		t.Errorf("after a change of labels: %v", got)
	}
	if stored := storetest.Get[*api.Secret](t, s.store, got.GetSecret().GetId()); string(stored.GetSpec().GetData()) != "value 2" {
		t.Error("a change of labels changed the value")
	}
	for text, change := range map[string]*api.ValueChange{
		"nothing is to be changed":  {},
		"must be 1 to 512000 bytes": {Data: make([]byte, 512001)},
		"a label has an empty key":  {LabelAdd: map[string]string{"": "x"}},
	} {
		_, err := s.UpdateSecret(t.Context(), &api.UpdateSecretRequest{Secret: "db", Change: change})
		wantFault(t, err, fault.Invalid, text)
	}
}

// A service of before there were versions stays as it is until a new value comes.
func TestUpdateSecret_OfAServiceWithoutVersions(t *testing.T) {
	s := newSwarm(t)
	s.createSecret(t, "db")
	created := s.createService(t, withSecret("web", 0))
	change(t, s.store, created.GetId(), func(o *api.Service) { o.Spec.Task.Container.Secrets[0].Version = 0 })
	old, _ := s.reference(t, "web")
	spec := old.GetSpec()
	spec.Replicated.Replicas = 7
	_, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{ServiceId: old.GetId(), Version: old.GetMeta().GetVersion(), Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	if now, r := s.reference(t, "web"); now.GetSpecVersion() != 1 || r.GetVersion() != 0 {
		t.Errorf("scaling made spec version %d, secret version %d", now.GetSpecVersion(), r.GetVersion())
	}
	s.updateSecret(t, &api.ValueChange{Data: []byte("value 2")})
	now, r := s.reference(t, "web")
	if r.GetVersion() != 2 || now.GetPreviousSpec().GetTask().GetContainer().GetSecrets()[0].GetVersion() != 1 {
		t.Errorf("got version %d, before %v", r.GetVersion(), now.GetPreviousSpec().GetTask().GetContainer().GetSecrets())
	}
}

// Former values are kept while they are used, and a few more; nobody can have one that is gone.
func TestUpdateSecret_KeepsFormerValues(t *testing.T) {
	s := newSwarm(t)
	s.createSecret(t, "db")
	s.createService(t, withSecret("pinned", 1))
	for i := 2; i <= 9; i++ {
		s.updateSecret(t, &api.ValueChange{Data: fmt.Append(nil, "value ", i)})
	}
	task := &api.Task{
		Id: "t1", ServiceId: "gone", NodeId: "worker1", DesiredState: api.TaskState_TASK_STATE_RUNNING,
		Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING},
		Spec: &api.TaskSpec{Container: &api.ContainerSpec{Secrets: []*api.SecretReference{{
			SecretId: storetest.List[*api.Secret](t, s.store)[0].GetId(), Version: 9,
		}}}},
	}
	storetest.Create(t, s.store, task)
	got, err := s.GetSecret(t.Context(), &api.GetSecretRequest{Secret: "db"})
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, v := range got.GetSecret().GetVersions() {
		if v.GetCreatedAt() == nil {
			t.Errorf("version %d has no time", v.GetNumber())
		}
		lines = append(lines, fmt.Sprintf("%d %v %v", v.GetNumber(), v.GetServices(), v.GetNodes()))
	}
	want := []string{"9 [] [host-worker1]", "8 [] []", "7 [] []", "6 [] []", "5 [] []", "4 [] []", "1 [pinned] []"}
	if !slices.Equal(lines, want) {
		t.Errorf("got  %q\nwant %q", lines, want)
	}
	_, err = s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: withSecret("other", 2)})
	wantFault(t, err, fault.Invalid, "secret db has no version 2: `skep secret inspect db` lists those that there are")
	s.createService(t, withSecret("other", 4))
	for _, v := range storetest.List[*api.OldValue](t, s.store) {
		if want := fmt.Append(nil, "value ", v.GetNumber()); v.GetNumber() > 1 && !bytes.Equal(v.GetData(), want) {
			t.Errorf("version %d has the value of another one", v.GetNumber())
		}
	}
	// With the secret all of them go.
	_, err = s.RemoveSecret(t.Context(), &api.RemoveSecretRequest{Secret: "db"})
	wantFault(t, err, fault.Precondition, "secret 'db' is in use by the following services: other, pinned")
	for _, name := range []string{"pinned", "other"} {
		if _, err := s.RemoveService(t.Context(), &api.RemoveServiceRequest{Service: name}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.RemoveSecret(t.Context(), &api.RemoveSecretRequest{Secret: "db"}); err != nil {
		t.Fatal(err)
	}
	if left := storetest.List[*api.OldValue](t, s.store); len(left) > 0 {
		t.Errorf("%d former values are left", len(left))
	}
}

// A template that no node could fill in is refused, when it is made and when it gets a new value.
func TestCreateConfig_ChecksTemplates(t *testing.T) {
	s := newSwarm(t)
	create := func(driver, data string) error {
		_, err := s.CreateConfig(t.Context(), &api.CreateConfigRequest{Spec: &api.ConfigSpec{
			Annotations: &api.Annotations{Name: "site"}, Data: []byte(data), TemplateDriver: driver,
		}})
		return err
	}
	wantFault(t, create("ruby", "x"), fault.Invalid, `template_driver: unknown template driver "ruby": golang is the only one`)
	wantFault(t, create("golang", "{{exec}}"), fault.Invalid, `data: template: value:1: function "exec" not defined`)
	if err := create("golang", `{{secret "db"}}`); err != nil {
		t.Fatal(err)
	}
	_, err := s.UpdateConfig(t.Context(), &api.UpdateConfigRequest{Config: "site", Change: &api.ValueChange{Data: []byte("{{range 9}}{{end}}")}})
	wantFault(t, err, fault.Invalid, "{{range}} can only be over a field")
}
