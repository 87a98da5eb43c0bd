package manager

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

func plannedNode(id string, cpus int64) *api.Node {
	return &api.Node{
		Id: id, Spec: &api.NodeSpec{Availability: api.Availability_AVAILABILITY_ACTIVE},
		Description: &api.NodeDescription{Hostname: "host-" + id, Resources: &api.Resources{NanoCpus: cpus, MemoryBytes: 1 << 30}},
		Status:      &api.NodeStatus{State: api.NodeState_NODE_STATE_READY},
	}
}

func plannedService(replicas uint64) *api.Service {
	return &api.Service{Id: "web-id", SpecVersion: 1, Spec: &api.ServiceSpec{
		Annotations: &api.Annotations{Name: "web"}, Task: &api.TaskSpec{Container: &api.ContainerSpec{Image: "app:1"}},
		Replicated: &api.ReplicatedService{Replicas: replicas},
	}}
}

func planOf(t *testing.T, s *store.Store, service *api.Service) (lines []string, update *api.PlannedUpdate) {
	t.Helper()
	err := s.View(func(tx store.ReadTx) error {
		tasks, way, err := newPlanner().Plan(t.Context(), tx, service, "changed: it")
		update = way
		for _, p := range tasks {
			action := strings.ToLower(strings.TrimPrefix(p.GetAction().String(), "PLANNED_ACTION_"))
			lines = append(lines, strings.Join([]string{p.GetTaskId(), action, p.GetHostname(), p.GetToHostname(), p.GetWhy(), p.GetRefusal()}, "|"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines, update
}

func TestPlanner_SaysWhatMovesWhere(t *testing.T) {
	s := storetest.New(t)
	storetest.Create(t, s, plannedNode("a", 1e9), plannedNode("b", 4e9))
	before := plannedService(2)
	storetest.Create(t, s, before)
	for slot, node := range []string{"a", "b"} {
		storetest.Create(t, s, &api.Task{
			Id: "task-" + node, ServiceId: "web-id", ServiceName: "web", Slot: uint64(slot + 1), SpecVersion: 1, NodeId: node, Spec: before.GetSpec().GetTask(),
			DesiredState: api.TaskState_TASK_STATE_RUNNING, Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING},
		})
	}
	change := func(version uint64, replicas uint64, cpus int64) *api.Service {
		after := plannedService(replicas)
		after.SpecVersion = version
		after.Spec.Task.Resources = &api.ResourceRequirements{Reservations: &api.Resources{NanoCpus: cpus}}
		return after
	}
	for name, c := range map[string]struct {
		service *api.Service
		want    []string
	}{
		"nothing": {before, []string{"task-a|stay|host-a|||", "task-b|stay|host-b|||"}},
		"up":      {change(1, 3, 0), []string{"|create||host-a||", "task-a|stay|host-a|||", "task-b|stay|host-b|||"}},
		"down":    {change(1, 1, 0), []string{"task-b|remove|host-b||there are to be fewer|", "task-a|stay|host-a|||"}},
		"only b has room": {change(2, 2, 2e9), []string{
			"task-a|replace|host-a|host-b|changed: it|", "task-b|replace|host-b|host-b|changed: it|",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			got, _ := planOf(t, s, c.service)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("tasks (-want +got):\n%s", diff)
			}
		})
	}
	got, _ := planOf(t, s, change(2, 2, 8e9))
	if len(got) != 2 || !strings.HasPrefix(got[0], "task-a|replace|host-a||changed: it|no suitable node") {
		t.Errorf("of more than a node has: got %q, want the reason", got)
	}
	got, _ = planOf(t, s, &api.Service{Id: "new-id", SpecVersion: 1, Spec: plannedService(1).GetSpec()})
	if diff := cmp.Diff([]string{"|create||host-a||"}, got); diff != "" {
		t.Errorf("a new service (-want +got):\n%s", diff)
	}
	if n := len(storetest.List[*api.Task](t, s)); n != 2 {
		t.Errorf("there are %d tasks after plans, want the 2 of before", n)
	}
}

// What a slot keeps in a volume holds in a plan as it holds when the change is made.
func TestPlanner_KeepsASlotWithItsVolumes(t *testing.T) {
	mounted := func(version uint64, image string) *api.Service {
		service := plannedService(1)
		service.SpecVersion, service.Spec.Task.Container.Image = version, image
		service.Spec.Task.Container.Mounts = []*api.Mount{{Type: api.MountType_MOUNT_TYPE_VOLUME, Source: "data", Target: "/data"}}
		return service
	}
	s := storetest.New(t)
	before := mounted(1, "app:1")
	storetest.Create(t, s, plannedNode("a", 4e9), plannedNode("b", 4e9), before)
	storetest.Create(t, s, &api.Task{
		Id: "task-b", ServiceId: "web-id", ServiceName: "web", Slot: 1, SpecVersion: 1, NodeId: "b", Spec: before.GetSpec().GetTask(),
		DesiredState: api.TaskState_TASK_STATE_RUNNING,
		Status:       &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING, Container: &api.ContainerStatus{ContainerId: "task-b"}},
	})
	after := mounted(2, "app:2")
	got, _ := planOf(t, s, after)
	if diff := cmp.Diff([]string{"task-b|replace|host-b|host-b|changed: it|"}, got); diff != "" {
		t.Errorf("with volumes (-want +got):\n%s", diff)
	}
	after.Spec.Task.Container.Mounts[0].VolumeAnywhere = true
	got, _ = planOf(t, s, after)
	if diff := cmp.Diff([]string{"task-b|replace|host-b|host-a|changed: it|"}, got); diff != "" {
		t.Errorf("with volumes that may be anywhere (-want +got):\n%s", diff)
	}
}

// BenchmarkPlanner plans a new service of many tasks.
func BenchmarkPlanner(b *testing.B) {
	for _, replicas := range []uint64{10_000, 40_000} {
		b.Run(strconv.FormatUint(replicas, 10), func(b *testing.B) {
			s := storetest.New(b)
			for i := range 100 {
				storetest.Create(b, s, plannedNode("node"+strconv.Itoa(i), 4e9))
			}
			for b.Loop() {
				err := s.View(func(tx store.ReadTx) error {
					_, _, err := newPlanner().Plan(b.Context(), tx, plannedService(replicas), "")
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
