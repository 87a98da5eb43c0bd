package control_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// atOnce calls all functions at the same time and returns their errors.
func atOnce(calls ...func() error) []error {
	errs := make([]error, len(calls))
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i, call := range calls {
		wg.Go(func() {
			<-start
			errs[i] = fault.FromStatus(call())
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// TestRemoveSecret_NeverFromUnderAService lets a secret be removed while a service starts to use it: one of the two is refused.
func TestRemoveSecret_NeverFromUnderAService(t *testing.T) {
	s := newSwarm(t)
	for i := range 50 {
		name := fmt.Sprint("s", i)
		s.createSecret(t, name)
		errs := atOnce(func() error {
			_, err := s.RemoveSecret(t.Context(), &api.RemoveSecretRequest{Secret: name})
			return err
		}, func() error {
			_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(func(spec *api.ServiceSpec) {
				spec.Annotations.Name = name
				spec.Task.Container.Secrets = []*api.SecretReference{{SecretName: name}}
			})})
			return err
		})
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("round %d: remove: %v, create: %v; want exactly one to succeed", i, errs[0], errs[1])
		}
	}
}

// TestUpdateNode_ManagersDemotedAtOnceLeaveOne lets two managers of two be demoted at the same moment (C5).
func TestUpdateNode_ManagersDemotedAtOnceLeaveOne(t *testing.T) {
	for range 50 {
		s := newSwarm(t)
		s.status.Members = []store.MemberStatus{member("m1", true, true), member("m22", false, true)}
		storetest.Create(t, s.store, node("m1", api.Role_ROLE_MANAGER), node("m22", api.Role_ROLE_MANAGER))
		demote := func(id string) func() error {
			version := storetest.Get[*api.Node](t, s.store, id).GetMeta().GetVersion()
			return func() error {
				_, err := s.UpdateNode(t.Context(), &api.UpdateNodeRequest{
					NodeId: id, Version: version, Spec: &api.NodeSpec{DesiredRole: api.Role_ROLE_WORKER},
				})
				return err
			}
		}
		errs := atOnce(demote("m1"), demote("m22"))
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("m1: %v, m22: %v; want exactly one to succeed", errs[0], errs[1])
		}
	}
}

// TestCreateService_SameRequestAtOnceMakesOneService sends one request several times at the same moment (C2).
func TestCreateService_SameRequestAtOnceMakesOneService(t *testing.T) {
	s := newSwarm(t)
	for i := range 20 {
		ctx := withRequestID(t, fmt.Sprint(i))
		var mu sync.Mutex
		ids := map[string]bool{}
		create := func() error {
			response, err := s.CreateService(ctx, &api.CreateServiceRequest{Spec: web(func(spec *api.ServiceSpec) { spec.Annotations.Name = "" })})
			mu.Lock()
			defer mu.Unlock()
			ids[response.GetService().GetId()] = true
			return err
		}
		for _, err := range atOnce(create, create, create) {
			if err != nil {
				t.Error(err)
			}
		}
		if len(ids) != 1 {
			t.Fatalf("round %d: one request made %d services", i, len(ids))
		}
	}
}
