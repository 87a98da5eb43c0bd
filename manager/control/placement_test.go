package control_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// echoPlacement is a PlacementExplainer that answers with what it was asked about.
type echoPlacement struct{}

func (echoPlacement) Explain(_ context.Context, _ store.ReadTx, tasks []*api.Task) ([]*api.Placing, error) {
	var out []*api.Placing
	for _, t := range tasks {
		out = append(out, &api.Placing{ServiceId: t.GetServiceId(), ServiceName: t.GetServiceName(), TaskId: t.GetId(), NodeId: t.GetNodeId()})
	}
	return out, nil
}

func TestExplainPlacement_IsOfWhatWaits(t *testing.T) {
	s := newSwarm(t)
	task := func(id, service string, slot uint64, node, bound string) {
		state := api.TaskState_TASK_STATE_RUNNING
		if node == "" {
			state = api.TaskState_TASK_STATE_PENDING
		}
		storetest.Create(t, s.store, &api.Task{
			Id: id, ServiceId: service, ServiceName: "of-" + service, Slot: slot, NodeId: node, BoundNodeId: bound, Status: &api.TaskStatus{State: state},
		})
	}
	storetest.Create(t, s.store, &api.Service{Id: "s1", Spec: named("web")}, &api.Service{Id: "s2", Spec: named("db")}, &api.Service{Id: "s3", Spec: named("all")})
	task("a1", "s1", 1, "worker1", "")
	task("b1", "s2", 1, "worker1", "")
	task("b2", "s2", 2, "", "")
	task("b3", "s2", 3, "", "")
	task("c1", "s3", 0, "", "worker1")
	task("c2", "s3", 0, "", "worker2")
	storetest.Create(t, s.store, &api.Task{
		Id: "ended", ServiceId: "s1", Slot: 1, NodeId: "worker1", Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_FAILED},
	})
	for target, want := range map[string]string{
		"":      "b2/s2/2 c1/s3/2", // ordered by service
		"web":   "/s1/0",
		"db":    "b2/s2/2",
		"all":   "c1/s3/2 c2/s3/2",
		"db.1":  "b1/s2/2",
		"web.1": "a1/s1/0",
		"a1":    "a1/s1/0",
	} {
		answer, err := s.ExplainPlacement(t.Context(), &api.ExplainPlacementRequest{Target: target})
		if err != nil {
			t.Fatalf("%q: %v", target, err)
		}
		var got []string
		for _, p := range answer.GetPlacings() {
			got = append(got, fmt.Sprintf("%s/%s/%d", p.GetTaskId(), p.GetServiceId(), p.GetWaiting()))
		}
		if text := strings.Join(got, " "); text != want {
			t.Errorf("%q: got %s, want %s", target, text, want)
		}
	}
	for target, kind := range map[string]fault.Kind{"nothing": fault.NotFound, "ended": fault.Precondition} {
		_, err := s.ExplainPlacement(t.Context(), &api.ExplainPlacementRequest{Target: target})
		if fault.KindOf(err) != kind {
			t.Errorf("%q: got %v, want the kind %v", target, err, kind)
		}
	}
}
