package taskstate_test

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
)

// TestAccepts_EveryPairOfStates walks the whole table instead of sampling it (I6).
func TestAccepts_EveryPairOfStates(t *testing.T) {
	reportable := map[api.TaskState]bool{}
	for _, s := range taskstate.States() {
		reportable[s] = s >= api.TaskState_TASK_STATE_ACCEPTED && s <= api.TaskState_TASK_STATE_REJECTED
	}
	all := append(taskstate.States(), api.TaskState_TASK_STATE_UNSPECIFIED, api.TaskState_TASK_STATE_REMOVE)
	for _, from := range all {
		for _, to := range all {
			want := reportable[to] && to > from && from <= api.TaskState_TASK_STATE_RUNNING
			if got := taskstate.Accepts(&api.TaskStatus{State: from}, &api.TaskStatus{State: to}); got != want {
				t.Errorf("%v -> %v: got %v, want %v", from, to, got, want)
			}
			news := &api.TaskStatus{State: to, Message: "news"}
			want = reportable[to] && to >= from && from <= api.TaskState_TASK_STATE_RUNNING
			if got := taskstate.Accepts(&api.TaskStatus{State: from}, news); got != want {
				t.Errorf("%v -> %v with news: got %v, want %v", from, to, got, want)
			}
		}
	}
}

func TestStates_AreAllObservable(t *testing.T) {
	states := taskstate.States()
	if !slices.IsSorted(states) {
		t.Errorf("states are not in order: %v", states)
	}
	for number := range api.TaskState_name {
		s := api.TaskState(number)
		desiredOnly := s == api.TaskState_TASK_STATE_UNSPECIFIED || s == api.TaskState_TASK_STATE_REMOVE
		if slices.Contains(states, s) == desiredOnly {
			t.Errorf("%v: listed is %v", s, !desiredOnly)
		}
	}
}

func TestMayOverlap(t *testing.T) {
	task := func(node string, state, desired api.TaskState) *api.Task {
		return &api.Task{NodeId: node, Status: &api.TaskStatus{State: state}, DesiredState: desired}
	}
	for _, tt := range []struct {
		name string
		task *api.Task
		lost bool
		want bool
	}{
		{"stopping", task("n", api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_SHUTDOWN), false, true},
		{"stopping, node lost", task("n", api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_SHUTDOWN), true, false},
		{"stopped", task("n", api.TaskState_TASK_STATE_FAILED, api.TaskState_TASK_STATE_REMOVE), false, false},
		{"never placed", task("", api.TaskState_TASK_STATE_PENDING, api.TaskState_TASK_STATE_SHUTDOWN), false, false},
		{"live", task("n", api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_RUNNING), false, false},
	} {
		if got := taskstate.MayOverlap(tt.task, tt.lost); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCompare_NewerSpecIsNewer(t *testing.T) {
	at := func(id string, version uint64, seconds int64) *api.Task {
		return &api.Task{
			Id: id, SpecVersion: version, Meta: &api.Meta{CreatedAt: timestamppb.New(time.Unix(seconds, 0))},
			DesiredState: api.TaskState_TASK_STATE_SHUTDOWN,
		}
	}
	live := at("1", 2, 0) // by a leader whose clock is behind
	live.DesiredState = api.TaskState_TASK_STATE_READY
	order := []*api.Task{at("c", 1, 5), at("a", 2, 1), at("b", 2, 1), at("0", 2, 2), live}
	if !slices.IsSortedFunc(order, taskstate.Compare) {
		t.Error("got another order")
	}
}

func TestNew_SharesNothingWithTheService(t *testing.T) {
	service := &api.Service{Id: "s", SpecVersion: 3, Spec: &api.ServiceSpec{
		Annotations: &api.Annotations{Name: "web"}, Task: &api.TaskSpec{Container: &api.ContainerSpec{Image: "app"}},
		Endpoint: &api.EndpointSpec{Ports: []*api.PortConfig{{TargetPort: 80}}},
	}}
	task := taskstate.New(service, 2, "t", api.TaskState_TASK_STATE_READY)
	task.Spec.Container.Image = "other"
	task.Endpoint.Ports[0].PublishedPort = 8080
	if got := service.Spec.Task.Container.Image; got != "app" {
		t.Errorf("the service's image became %q", got)
	}
	if got := service.Spec.Endpoint.Ports[0].PublishedPort; got != 0 {
		t.Errorf("the service's port became %d", got)
	}
	if task.GetServiceName() != "web" || task.GetSpecVersion() != 3 || task.GetSlot() != 2 {
		t.Errorf("got %v", task)
	}
}
