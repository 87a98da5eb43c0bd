package control_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/storetest"
)

// ranStats is a StatsReader that answers for every task whose node it is told of.
type ranStats struct{}

func (ranStats) ReadStats(_ context.Context, tasks []*api.Task, nodes map[string]*api.Node) *api.ReadStatsResponse {
	out := &api.ReadStatsResponse{}
	for _, t := range tasks {
		if nodes[t.GetNodeId()] != nil {
			out.Tasks = append(out.Tasks, &api.TaskStats{TaskId: t.GetId()})
		}
	}
	return out
}

func TestReadStats_IsOfTheTasksThatRun(t *testing.T) {
	s := newSwarm(t)
	storetest.Create(t, s.store, &api.Service{Id: "s1", Spec: named("web")}, &api.Service{Id: "s2", Spec: named("db")})
	task := func(id, service string, slot uint64, state api.TaskState) {
		storetest.Create(t, s.store, &api.Task{
			Id: id, ServiceId: service, Slot: slot, NodeId: "worker1", Status: &api.TaskStatus{State: state},
		})
	}
	task("a1", "s1", 1, api.TaskState_TASK_STATE_FAILED)
	task("a2", "s1", 1, api.TaskState_TASK_STATE_RUNNING)
	task("a3", "s1", 2, api.TaskState_TASK_STATE_RUNNING)
	task("b1", "s2", 1, api.TaskState_TASK_STATE_RUNNING)
	task("b2", "s2", 2, api.TaskState_TASK_STATE_STARTING)
	storetest.Create(t, s.store, &api.Task{
		Id: "lost", ServiceId: "s2", Slot: 1, NodeId: "worker1", DesiredState: api.TaskState_TASK_STATE_SHUTDOWN,
		Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING},
	})
	for _, tc := range []struct {
		targets []string
		want    string
	}{
		{nil, "a2 a3 b1"},
		{[]string{"web"}, "a2 a3"},
		{[]string{"web.1"}, "a2"},
		{[]string{"db.2"}, ""},
		{[]string{"db", "a3", "a1", "a3"}, "b1 a3"},
	} {
		answer, err := s.ReadStats(t.Context(), &api.ReadStatsRequest{Targets: tc.targets})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, task := range answer.GetTasks() {
			got = append(got, task.GetTaskId())
		}
		if diff := cmp.Diff(tc.want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tc.targets, diff)
		}
	}
	for target, kind := range map[string]fault.Kind{"nothere": fault.NotFound, "nothere.1": fault.NotFound, "web.x": fault.NotFound, "web.3": fault.NotFound, "": fault.Invalid} {
		if _, err := s.ReadStats(t.Context(), &api.ReadStatsRequest{Targets: []string{target}}); fault.KindOf(err) != kind {
			t.Errorf("%q: error %v, want %v", target, err, kind)
		}
	}
}
