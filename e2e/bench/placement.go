package main

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/scheduler"
)

// placement measures how long the scheduler takes to decide, without the store: over numbers of nodes, so that growth is seen.
func (b bench) placement(context.Context) error {
	for _, size := range []struct {
		nodes, tasks, services int
		constrained            bool
		mark                   string
	}{
		{100, 10_000, 1, false, ""},
		{1000, 100_000, 1, false, "< 1000 ms"},
		{5000, 500_000, 1, false, ""},
		{100, 10_000, 1, true, ""},
		{1000, 100_000, 1, true, "< 1500 ms"},
		{5000, 500_000, 1, true, ""},
		{1000, 100_000, 1000, true, ""},
	} {
		busy := processorTime()
		took, err := placed(size.nodes, size.tasks, size.services, size.constrained)
		if err != nil {
			return err
		}
		busy = processorTime() - busy
		what := fmt.Sprintf("schedule %d tasks of %d services on %d nodes", size.tasks, size.services, size.nodes)
		if size.constrained {
			what += ", constrained and spread over racks"
		}
		b.row(what, milliseconds(took)+", with the tasks made "+milliseconds(busy)+" of processors", size.mark)
	}
	for _, nodes := range []int{100, 1000, 10_000} {
		mark := ""
		if nodes == 10_000 {
			mark = "< 1 ms"
		}
		took, err := placedOne(nodes)
		if err != nil {
			return err
		}
		b.row(fmt.Sprintf("schedule one task more on %d nodes, p50 of %d", nodes, oneMore), fmt.Sprintf("%.2f ms", float64(took)/float64(time.Millisecond)), mark)
	}
	return nil
}

// processorTime returns what this process has used: on a busy machine it says more than a clock does.
func processorTime() time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// placed measures one step that decides about all tasks.
func placed(nodes, tasks, services int, constrained bool) (time.Duration, error) {
	core := scheduler.NewCore()
	core.Step(time.Now(), machines(nodes))
	changes := make([]scheduler.Change, 0, tasks)
	for i := range tasks {
		changes = append(changes, scheduler.Change{Task: waiting(i, i%services, constrained)})
	}
	began := time.Now()
	decisions := core.Step(time.Now(), changes)
	took := time.Since(began)
	for _, d := range decisions {
		if d.Node == nil {
			return 0, fmt.Errorf("task %s has no node: %s", d.Task.GetId(), d.Reason)
		}
	}
	if len(decisions) != tasks {
		return 0, fmt.Errorf("%d decisions about %d tasks", len(decisions), tasks)
	}
	return took, nil
}

// oneMore is how many tasks are added one by one.
const oneMore = 101

// placedOne measures steps that decide about one task, in a cluster with ten tasks on each node, half of them of the same service.
func placedOne(nodes int) (time.Duration, error) {
	core := scheduler.NewCore()
	core.Step(time.Now(), machines(nodes))
	var changes []scheduler.Change
	for i := range nodes * 10 {
		changes = append(changes, scheduler.Change{Task: waiting(i, i%2, false)})
	}
	core.Step(time.Now(), changes)
	var took []time.Duration
	for i := range oneMore {
		change := []scheduler.Change{{Task: waiting(nodes*10+i, 0, false)}}
		began := time.Now()
		decisions := core.Step(time.Now(), change)
		took = append(took, time.Since(began))
		if len(decisions) != 1 || decisions[0].Node == nil {
			return 0, fmt.Errorf("%d decisions about a task that any node takes", len(decisions))
		}
	}
	return median(took), nil
}

func machines(n int) (changes []scheduler.Change) {
	const racks, nanoCPU = 20, 1_000_000_000
	for i := range n {
		changes = append(changes, scheduler.Change{Node: &api.Node{
			Id: fmt.Sprintf("node%06d", i), Status: &api.NodeStatus{State: api.NodeState_NODE_STATE_READY},
			Spec: &api.NodeSpec{
				Availability: api.Availability_AVAILABILITY_ACTIVE,
				Annotations:  &api.Annotations{Labels: map[string]string{"rack": fmt.Sprint(i % racks), "disk": "ssd"}},
			},
			Description: &api.NodeDescription{
				Hostname: fmt.Sprintf("host%d", i), Platform: &api.Platform{Os: "linux", Architecture: "amd64"},
				Resources: &api.Resources{NanoCpus: 1000 * nanoCPU, MemoryBytes: 1 << 40},
			},
		}})
	}
	return changes
}

func waiting(number, service int, constrained bool) *api.Task {
	t := &api.Task{
		Id: fmt.Sprintf("task%09d", number), ServiceId: fmt.Sprintf("service%06d", service), SpecVersion: 1, DesiredState: api.TaskState_TASK_STATE_RUNNING,
		Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_PENDING},
		Spec: &api.TaskSpec{
			Container: &api.ContainerSpec{Image: "app"}, Placement: &api.Placement{},
			Resources: &api.ResourceRequirements{Reservations: &api.Resources{NanoCpus: 1_000_000, MemoryBytes: 4 << 20}},
		},
	}
	if constrained {
		t.Spec.Placement.Constraints = []string{"node.labels.disk in (ssd,nvme)", "node.platform.os==linux", "node.labels.rack!=19"}
		t.Spec.Placement.Preferences = []*api.PlacementPreference{{Spread: "node.labels.rack"}}
	}
	return t
}
