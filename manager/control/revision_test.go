package control_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// history returns the numbers of the revisions of the service web, and the arguments in each.
func (s *swarm) history(t *testing.T) (numbers []uint64, args []string) {
	t.Helper()
	response, err := s.ListServiceRevisions(t.Context(), &api.ListServiceRevisionsRequest{Service: "web"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range response.GetRevisions() {
		numbers, args = append(numbers, r.GetNumber()), append(args, fmt.Sprint(r.GetSpec().GetTask().GetContainer().GetArgs()))
	}
	return numbers, args
}

func withArgs(arg string) func(*api.ServiceSpec) {
	return func(spec *api.ServiceSpec) { spec.Task.Container.Args = []string{arg} }
}

func TestRevisions_AreTheLastTen(t *testing.T) {
	s := newSwarm(t)
	s.createService(t, web(withArgs("1")))
	for i := 2; i <= 12; i++ {
		s.changeTo(t, withArgs(fmt.Sprint(i)))
	}
	s.changeTo(t, withArgs("12")) // which changes nothing
	numbers, args := s.history(t)
	if diff := cmp.Diff([]uint64{3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, numbers); diff != "" || args[0] != "[3]" || args[9] != "[12]" {
		t.Errorf("revisions with %v (-want +got):\n%s", args, diff)
	}
	if _, err := s.RemoveService(t.Context(), &api.RemoveServiceRequest{Service: "web"}); err != nil {
		t.Fatal(err)
	}
	if left := storetest.List[*api.ServiceRevision](t, s.store); len(left) > 0 {
		t.Errorf("%d revisions outlive their service", len(left))
	}
}

func TestRevisions_OneCanBeGoneBackTo(t *testing.T) {
	s := newSwarm(t)
	first := s.createService(t, web(withArgs("1")))
	s.changeTo(t, withArgs("2"))
	s.changeTo(t, withArgs("3"))
	back := func(to uint64) (*api.Service, error) {
		response, err := s.RollbackService(t.Context(), &api.RollbackServiceRequest{Service: "web", Revision: to})
		return response.GetService(), err
	}
	got, err := back(1)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first.GetSpec(), got.GetSpec(), protocmp.Transform()); diff != "" {
		t.Errorf("the spec (-want +got):\n%s", diff)
	}
	if numbers, args := s.history(t); fmt.Sprint(numbers, args) != "[1 2 3 4] [[1] [2] [3] [1]]" {
		t.Errorf("history %v %v", numbers, args)
	}
	_, err = back(5)
	wantFault(t, err, fault.NotFound, "service web has no revision 5")
}

func TestRevisions_SayWhoAndWhatWasRestored(t *testing.T) {
	s := newSwarm(t)
	s.createService(t, web(withArgs("1")))
	s.changeTo(t, withArgs("2"))
	if _, err := s.RollbackService(t.Context(), &api.RollbackServiceRequest{Service: "web", Revision: 1}); err != nil {
		t.Fatal(err)
	}
	kept := storetest.List[*api.ServiceRevision](t, s.store)
	by := map[uint64]string{}
	for _, r := range kept {
		by[r.GetNumber()] = fmt.Sprintf("%s %d %d", r.GetChangedBy(), r.GetRestored(), r.GetSpecVersion())
	}
	if by[1] != "ada 0 1" || by[3] != "ada 1 3" {
		t.Errorf("got %v", by)
	}
}

// What the managers went back to by themselves is kept with the next change, and shown before.
func TestRevisions_HaveWhatTheManagersRestored(t *testing.T) {
	s := newSwarm(t)
	service := s.createService(t, web(withArgs("1")))
	s.changeTo(t, withArgs("2"))
	err := s.store.Update(t.Context(), "", func(tx store.Tx) error {
		old, err := store.Get[*api.Service](tx, service.GetId())
		if err != nil {
			return err
		}
		back := proto.CloneOf(old)
		back.Spec, back.PreviousSpec = back.GetPreviousSpec(), nil
		return tx.Update(back)
	})
	if err != nil {
		t.Fatal(err)
	}
	if numbers, args := s.history(t); fmt.Sprint(numbers, args) != "[1 2 3] [[1] [2] [1]]" {
		t.Errorf("history %v %v", numbers, args)
	}
	s.changeTo(t, withArgs("4"))
	if numbers, args := s.history(t); fmt.Sprint(numbers, args) != "[1 2 3 4] [[1] [2] [1] [4]]" {
		t.Errorf("history %v %v", numbers, args)
	}
}
