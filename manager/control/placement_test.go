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

func TestExplainPlacement_SaysWhichSlotsEnded(t *testing.T) {
	const (
		running, shutdown, ready = api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_SHUTDOWN, api.TaskState_TASK_STATE_READY
		failed, complete         = api.TaskState_TASK_STATE_FAILED, api.TaskState_TASK_STATE_COMPLETE
	)
	type task struct{ state, desired api.TaskState }
	for name, tt := range map[string]struct {
		tasks []task
		job   bool
		want  string
	}{
		"runs":                     {tasks: []task{{failed, shutdown}, {running, running}}},
		"starts":                   {tasks: []task{{failed, shutdown}, {ready, running}}},
		"waits for its delay":      {tasks: []task{{failed, shutdown}, {failed, shutdown}, {ready, ready}}, want: "t2 on worker1: boom 2, another follows"},
		"failed before its start":  {tasks: []task{{failed, shutdown}, {failed, ready}}, want: "t2 on worker1: boom 2, another follows"},
		"gave up":                  {tasks: []task{{failed, shutdown}, {failed, shutdown}}, want: "t2 on worker1: boom 2, given up"},
		"ended well, for good":     {tasks: []task{{complete, shutdown}}, want: "t1 on worker1:  1, given up"},
		"was told to stop":         {tasks: []task{{shutdown, shutdown}}},
		"is to be forgotten":       {tasks: []task{{failed, api.TaskState_TASK_STATE_REMOVE}}},
		"a job's is done":          {tasks: []task{{failed, shutdown}, {complete, shutdown}}, job: true},
		"a job's gave up":          {tasks: []task{{failed, shutdown}}, job: true, want: "t1 on worker1: boom 1, given up"},
		"waits, and nothing ended": {tasks: []task{{ready, ready}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSwarm(t)
			spec := named("web")
			if tt.job {
				spec.ReplicatedJob = &api.ReplicatedJob{}
			}
			storetest.Create(t, s.store, &api.Service{Id: "s1", Spec: spec})
			for i, task := range tt.tasks {
				status := &api.TaskStatus{State: task.state}
				if task.state == failed {
					status.Err = "boom"
				}
				storetest.Create(t, s.store, &api.Task{
					Id: fmt.Sprint("t", i+1), ServiceId: "s1", ServiceName: "web", Slot: 1, NodeId: "worker1", Status: status, DesiredState: task.desired,
				})
			}
			answer, err := s.ExplainPlacement(t.Context(), &api.ExplainPlacementRequest{Target: "web"})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range answer.GetPlacings()[0].GetFailures() {
				next := "another follows"
				if f.GetGivenUp() {
					next = "given up"
				}
				got = append(got, fmt.Sprintf("%s on %s: %s %d, %s", f.GetTaskId(), f.GetNodeId(), f.GetError(), f.GetEnded(), next))
			}
			if text := strings.Join(got, "; "); text != tt.want {
				t.Errorf("got %q, want %q", text, tt.want)
			}
		})
	}
}
