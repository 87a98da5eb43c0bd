package control_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
)

// echoPlanner is a Planner that says what it was asked about.
type echoPlanner struct{}

func (echoPlanner) Plan(_ context.Context, _ store.ReadTx, service *api.Service, because string) ([]*api.PlannedTask, *api.PlannedUpdate, error) {
	return []*api.PlannedTask{{Slot: service.GetSpecVersion(), Action: api.PlannedAction_PLANNED_ACTION_REPLACE, Why: because}}, &api.PlannedUpdate{}, nil
}

func (s *swarm) everything(t *testing.T) (all []*api.Service) {
	t.Helper()
	answer, err := s.ListServices(t.Context(), &api.ListServicesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetServices()
}

func TestPlanService_WritesNothing(t *testing.T) {
	s := newSwarm(t)
	s.createService(t, web())
	service := s.changeTo(t, func(spec *api.ServiceSpec) { spec.Task.Container.Args = []string{"second"} })
	before := s.everything(t)
	changed := web(func(spec *api.ServiceSpec) { spec.Task.Container.Args = []string{"third"} })
	other := web(func(spec *api.ServiceSpec) { spec.Annotations.Name = "other" })
	for name, c := range map[string]struct {
		request *api.PlanServiceRequest
		field   string
		version uint64
	}{
		"create": {&api.PlanServiceRequest{Spec: other}, "task.container.image", 1},
		"update": {
			&api.PlanServiceRequest{Service: "web", Version: service.GetMeta().GetVersion(), Spec: changed}, "task.container.args", 3,
		},
		"rollback": {&api.PlanServiceRequest{Service: "web", Rollback: true}, "task.container.args", 3},
	} {
		// Twice: the first leaves nothing behind that the second could meet.
		for range 2 {
			plan, err := s.PlanService(t.Context(), c.request)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var fields []string
			for _, change := range plan.GetChanges() {
				fields = append(fields, change.GetField())
			}
			if all := strings.Join(fields, " "); !strings.Contains(all, c.field) {
				t.Errorf("%s: the fields %s, want %s among them", name, all, c.field)
			}
			if got := plan.GetTasks(); len(got) != 1 || got[0].GetSlot() != c.version || plan.GetUpdate() == nil {
				t.Errorf("%s: got %v, want to have asked about version %d", name, plan, c.version)
			}
		}
		if diff := cmp.Diff(before, s.everything(t), protocmp.Transform()); diff != "" {
			t.Errorf("%s changed services (-before +after):\n%s", name, diff)
		}
	}
	revisions, err := s.ListServiceRevisions(t.Context(), &api.ListServiceRevisionsRequest{Service: "web"})
	if err != nil || len(revisions.GetRevisions()) != 2 {
		t.Errorf("revisions %v (%v), want the two of before", revisions, err)
	}
}

func TestPlanService_OfNoChangeIsEmpty(t *testing.T) {
	s := newSwarm(t)
	service := s.createService(t, web())
	plan, err := s.PlanService(t.Context(), &api.PlanServiceRequest{Service: "web", Version: service.GetMeta().GetVersion(), Spec: service.GetSpec()})
	if err != nil || len(plan.GetChanges()) > 0 || len(plan.GetTasks()) > 0 {
		t.Errorf("got %v (%v), want no change", plan, err)
	}
}

func TestPlanService_RefusesWhatTheChangeWould(t *testing.T) {
	s := newSwarm(t)
	service := s.createService(t, web())
	version := service.GetMeta().GetVersion()
	bad := web(func(spec *api.ServiceSpec) {
		spec.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_VOLUME}}
	})
	renamed := web(func(spec *api.ServiceSpec) { spec.Annotations.Name = "other" })
	for name, c := range map[string]struct {
		plan *api.PlanServiceRequest
		call func() error
	}{
		"name taken": {&api.PlanServiceRequest{Spec: web()}, func() error {
			_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web()})
			return err
		}},
		"bad spec": {&api.PlanServiceRequest{Service: "web", Version: version, Spec: bad}, func() error {
			_, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{ServiceId: service.GetId(), Version: version, Spec: bad})
			return err
		}},
		"renamed": {&api.PlanServiceRequest{Service: "web", Version: version, Spec: renamed}, func() error {
			_, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{ServiceId: service.GetId(), Version: version, Spec: renamed})
			return err
		}},
		"old version": {&api.PlanServiceRequest{Service: "web", Version: version + 1, Spec: web()}, func() error {
			_, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{ServiceId: service.GetId(), Version: version + 1, Spec: web()})
			return err
		}},
		"nothing before": {&api.PlanServiceRequest{Service: "web", Rollback: true}, func() error {
			_, err := s.RollbackService(t.Context(), &api.RollbackServiceRequest{Service: "web"})
			return err
		}},
	} {
		_, err := s.PlanService(t.Context(), c.plan)
		if want := c.call(); err == nil || want == nil || err.Error() != want.Error() || fault.KindOf(err) != fault.KindOf(want) {
			t.Errorf("%s: the plan says %v, the change %v", name, err, want)
		}
	}
	for _, request := range []*api.PlanServiceRequest{{}, {Service: "web"}, {Service: "web", Rollback: true, Spec: web()}} {
		if _, err := s.PlanService(t.Context(), request); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%v: got %v, want it to be invalid", request, err)
		}
	}
}
