package control_test

import (
	"fmt"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/storetest"
)

// global makes a spec one of a global service.
func global(spec *api.ServiceSpec) { spec.Replicated, spec.Global = nil, &api.GlobalService{} }

func TestCreateService_HasOneMode(t *testing.T) {
	s := newSwarm(t)
	if got := s.createService(t, web(global)); got.GetSpec().GetReplicated() != nil || got.GetSpec().GetGlobal() == nil {
		t.Errorf("got %v", got.GetSpec())
	}
	for _, tt := range []struct {
		name   string
		change func(*api.ServiceSpec)
		want   string
	}{
		{"two modes", func(s *api.ServiceSpec) { s.Replicated = &api.ReplicatedService{} }, "mode: a service has one mode, this one has replicated and global"},
		{"max replicas", func(s *api.ServiceSpec) { s.Task.Placement = &api.Placement{MaxReplicas: 1} }, "replicas-max-per-node can only be used with"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(global, tt.change)})
			wantFault(t, err, fault.Invalid, tt.want)
		})
	}
}

// job makes a spec one of a job.
func job(spec *api.ServiceSpec) {
	spec.Replicated, spec.ReplicatedJob = nil, &api.ReplicatedJob{TotalCompletions: 3, MaxConcurrent: 2}
}

func TestCreateService_Jobs(t *testing.T) {
	s := newSwarm(t)
	got := s.createService(t, web(job))
	if got.GetSpec().GetUpdate() != nil || got.GetSpec().GetRollback() != nil {
		t.Errorf("it has an update config: %v", got.GetSpec())
	}
	if c := got.GetSpec().GetTask().GetRestart().GetCondition(); c != api.RestartCondition_RESTART_CONDITION_ON_FAILURE {
		t.Errorf("its tasks are restarted on %v", c)
	}
	for _, tt := range []struct {
		name   string
		change func(*api.ServiceSpec)
		want   string
	}{
		{"update config", func(s *api.ServiceSpec) { s.Update = &api.UpdateConfig{Parallelism: 1} }, "a job has no update and no rollback config"},
		{"nothing to do", func(s *api.ServiceSpec) { s.ReplicatedJob.TotalCompletions = 0 }, "a job has 1 to 100000 tasks, got 0"},
		{"too much", func(s *api.ServiceSpec) { s.ReplicatedJob.TotalCompletions = 1e9 }, "got 1000000000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.CreateService(t.Context(), &api.CreateServiceRequest{Spec: web(job, tt.change)})
			wantFault(t, err, fault.Invalid, tt.want)
		})
	}
}

// TestUpdateService_StartsJobsAnew: with what makes other tasks, and not with what does not. It is no update that somebody waits for.
func TestUpdateService_StartsJobsAnew(t *testing.T) {
	s := newSwarm(t)
	service := s.createService(t, web(job))
	update := func(change func(*api.ServiceSpec)) *api.Service {
		t.Helper()
		change(service.Spec)
		response, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{
			ServiceId: service.GetId(), Version: service.GetMeta().GetVersion(), Spec: service.GetSpec(),
		})
		if err != nil {
			t.Fatal(err)
		}
		service = response.GetService()
		return service
	}
	if got := update(func(spec *api.ServiceSpec) { spec.ReplicatedJob.TotalCompletions = 9 }); got.GetSpecVersion() != 1 {
		t.Errorf("more completions: version %d", got.GetSpecVersion())
	}
	got := update(func(spec *api.ServiceSpec) { spec.Task.ForceUpdate++ })
	if got.GetSpecVersion() != 2 || got.GetUpdateStatus() != nil {
		t.Errorf("by force: version %d, status %v", got.GetSpecVersion(), got.GetUpdateStatus())
	}
}

func TestListServices_CountsWhatJobsCompleted(t *testing.T) {
	s := newSwarm(t)
	drained := node("drained", api.Role_ROLE_WORKER)
	drained.Spec.Availability = api.Availability_AVAILABILITY_DRAIN
	storetest.Create(t, s.store, drained, node("worker2", api.Role_ROLE_WORKER))
	replicated := s.createService(t, web(job))
	everywhere := s.createService(t, web(func(spec *api.ServiceSpec) { spec.Annotations.Name, spec.GlobalJob = "sweep", &api.GlobalJob{} }))
	for i, task := range []struct {
		service *api.Service
		bound   string
		slot    uint64
		version uint64
		state   api.TaskState
	}{
		{replicated, "", 1, 1, api.TaskState_TASK_STATE_COMPLETE},
		{replicated, "", 1, 1, api.TaskState_TASK_STATE_FAILED},
		{replicated, "", 2, 1, api.TaskState_TASK_STATE_FAILED},
		{everywhere, "drained", 1, 1, api.TaskState_TASK_STATE_COMPLETE},
		{everywhere, "worker1", 2, 1, api.TaskState_TASK_STATE_COMPLETE},
		{everywhere, "worker2", 3, 0, api.TaskState_TASK_STATE_COMPLETE}, // of another iteration
	} {
		storetest.Create(t, s.store, &api.Task{
			Id: fmt.Sprint("task", i), ServiceId: task.service.GetId(), Slot: task.slot, SpecVersion: task.version, NodeId: task.bound,
			BoundNodeId: task.bound, Status: &api.TaskStatus{State: task.state}, DesiredState: api.TaskState_TASK_STATE_SHUTDOWN,
		})
	}
	list, err := s.ListServices(t.Context(), &api.ListServicesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := list.GetCounts()[replicated.GetId()]; got.GetCompleted() != 1 || got.GetTotal() != 3 || got.GetDesired() != 2 {
		t.Errorf("replicated: got %v, want 1 of 3, two at once", got)
	}
	if got := list.GetCounts()[everywhere.GetId()]; got.GetCompleted() != 2 || got.GetTotal() != 3 || got.GetDesired() != 1 {
		t.Errorf("global: got %v, want 2 of 3", got)
	}
}

func TestUpdateService_KeepsTheMode(t *testing.T) {
	s := newSwarm(t)
	service := s.createService(t, web(global))
	_, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{
		ServiceId: service.GetId(), Version: service.GetMeta().GetVersion(), Spec: web(func(spec *api.ServiceSpec) {
			spec.Replicated = &api.ReplicatedService{Replicas: 2}
		}),
	})
	wantFault(t, err, fault.Invalid, "service mode change is not allowed: it is global, not replicated")
}

// TestUpdateService_GlobalConstraintsReplaceNothing: a node that fits no more loses its task, and the others keep theirs.
func TestUpdateService_GlobalConstraintsReplaceNothing(t *testing.T) {
	s := newSwarm(t)
	storetest.Create(t, s.store, node("worker2", api.Role_ROLE_WORKER))
	service := s.createService(t, web(global))
	for _, id := range []string{"worker1", "worker2"} {
		storetest.Create(t, s.store, &api.Task{
			Id: "on-" + id, ServiceId: service.GetId(), NodeId: id, BoundNodeId: id,
			Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING}, DesiredState: api.TaskState_TASK_STATE_RUNNING,
		})
	}
	spec := service.GetSpec()
	spec.Task.Placement = &api.Placement{Constraints: []string{"node.id!=worker2"}}
	response, err := s.UpdateService(t.Context(), &api.UpdateServiceRequest{
		ServiceId: service.GetId(), Version: service.GetMeta().GetVersion(), Spec: spec,
	})
	if err != nil || response.GetService().GetSpecVersion() != service.GetSpecVersion() {
		t.Errorf("got version %d and error %v, want version %d", response.GetService().GetSpecVersion(), err, service.GetSpecVersion())
	}
}

// TestGlobalServices_CountNodes: a node that is down is not counted, nor is its task; one that is paused keeps its task.
func TestGlobalServices_CountNodes(t *testing.T) {
	s := newSwarm(t)
	down, paused, drained := node("down", api.Role_ROLE_WORKER), node("paused", api.Role_ROLE_WORKER), node("drained", api.Role_ROLE_WORKER)
	down.Status.State = api.NodeState_NODE_STATE_DOWN
	paused.Spec.Availability = api.Availability_AVAILABILITY_PAUSE
	drained.Spec.Availability = api.Availability_AVAILABILITY_DRAIN
	storetest.Create(t, s.store, down, paused, drained, node("worker2", api.Role_ROLE_WORKER))
	service := s.createService(t, web(global))
	for _, id := range []string{"worker1", "down", "paused"} {
		storetest.Create(t, s.store, &api.Task{
			Id: "on-" + id, ServiceId: service.GetId(), NodeId: id, BoundNodeId: id,
			Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING}, DesiredState: api.TaskState_TASK_STATE_RUNNING,
		})
	}
	list, err := s.ListServices(t.Context(), &api.ListServicesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got := list.GetCounts()[service.GetId()]; got.GetRunning() != 2 || got.GetDesired() != 3 {
		t.Errorf("got %v, want 2 of 3: worker1, paused and the worker2 that is to come", got)
	}

	stream, err := s.WatchService(t.Context(), &api.WatchServiceRequest{ServiceId: service.GetId()})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || len(first.GetTasks()) != 2 || first.GetCounts().GetDesired() != 3 {
		t.Errorf("got %d tasks, counts %v, error %v; want two of three", len(first.GetTasks()), first.GetCounts(), err)
	}
	storetest.Create(t, s.store, node("worker3", api.Role_ROLE_WORKER))
	if next, err := stream.Recv(); err != nil || next.GetCounts().GetDesired() != 4 {
		t.Errorf("a node joined: counts %v, error %v; want 4", next.GetCounts(), err)
	}
}
