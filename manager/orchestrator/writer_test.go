package orchestrator_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

func apply(t *testing.T, s *store.Store, effects ...orchestrator.Effect) (full bool) {
	t.Helper()
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		v, err := orchestrator.ReadView(tx, "s", 0)
		if err != nil {
			return err
		}
		full, err = orchestrator.Apply(tx, time.Unix(7, 0), v, effects)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return full
}

// TestApply_DesiredStatesOnlyGoUp (I6).
func TestApply_DesiredStatesOnlyGoUp(t *testing.T) {
	s := storetest.New(t)
	storetest.Create(t, s, &api.Task{Id: "t", ServiceId: "s", Slot: 1, DesiredState: api.TaskState_TASK_STATE_SHUTDOWN})
	for _, tt := range []struct{ asked, want api.TaskState }{
		{api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_SHUTDOWN},
		{api.TaskState_TASK_STATE_REMOVE, api.TaskState_TASK_STATE_REMOVE},
		{api.TaskState_TASK_STATE_SHUTDOWN, api.TaskState_TASK_STATE_REMOVE},
	} {
		apply(t, s, orchestrator.Effect{Desired: []orchestrator.Desire{{TaskID: "t", State: tt.asked}}})
		if got := storetest.Get[*api.Task](t, s, "t").GetDesiredState(); got != tt.want {
			t.Errorf("asked for %v: got %v, want %v", tt.asked, got, tt.want)
		}
	}
}

// TestApply_KeepsEffectsWhole: when a transaction is full, what is left out is left out as a whole.
func TestApply_KeepsEffectsWhole(t *testing.T) {
	s := storetest.New(t)
	storetest.Create(t, s, simService("s", 1, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1))
	var effects []orchestrator.Effect
	const many = 500
	for i := range many {
		id := fmt.Sprint("t", i)
		storetest.Create(t, s, &api.Task{Id: id, ServiceId: "s", Slot: uint64(i + 1)})
		effects = append(effects, orchestrator.Effect{
			Desired: []orchestrator.Desire{{TaskID: id, State: api.TaskState_TASK_STATE_SHUTDOWN}},
			Create:  &orchestrator.Creation{Slot: uint64(i + 1), Desired: api.TaskState_TASK_STATE_READY},
		})
	}
	if !apply(t, s, effects...) {
		t.Error("500 effects of two writes each went into one transaction")
	}
	stopped, created := 0, 0
	for _, task := range storetest.List[*api.Task](t, s) {
		switch task.GetDesiredState() {
		case api.TaskState_TASK_STATE_SHUTDOWN:
			stopped++
		case api.TaskState_TASK_STATE_READY:
			created++
		}
	}
	if stopped != created || stopped == 0 || stopped == many {
		t.Errorf("%d tasks were stopped and %d created", stopped, created)
	}
}

// TestApply_OrphansKeepTheirContainer: what is known of it helps whoever looks for it later.
func TestApply_OrphansKeepTheirContainer(t *testing.T) {
	s := storetest.New(t)
	storetest.Create(t, s, &api.Task{Id: "t", ServiceId: "s", Slot: 1, NodeId: "n", Status: &api.TaskStatus{
		State: api.TaskState_TASK_STATE_RUNNING, Container: &api.ContainerStatus{ContainerId: "c"},
	}})
	apply(t, s, orchestrator.Effect{Orphan: "t"})
	got := storetest.Get[*api.Task](t, s, "t").GetStatus()
	if got.GetState() != api.TaskState_TASK_STATE_ORPHANED || got.GetContainer().GetContainerId() != "c" || got.GetErr() == "" {
		t.Errorf("got %v", got)
	}
	apply(t, s, orchestrator.Effect{Delete: "t"}, orchestrator.Effect{Delete: "t"})
	if got := len(storetest.List[*api.Task](t, s)); got != 0 {
		t.Errorf("%d tasks are left", got)
	}
}

// TestApply_TasksCarryTheirGrants: a node knows what a task may have from the task alone.
func TestApply_TasksCarryTheirGrants(t *testing.T) {
	s := storetest.New(t)
	service := simService("s", 1, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1)
	service.Spec.Task.Container = &api.ContainerSpec{Grants: []*api.GrantReference{{GrantId: "g", GrantName: "tun"}}}
	storetest.Create(t, s, service, &api.Grant{Id: "g", Spec: &api.GrantSpec{
		Annotations: &api.Annotations{Name: "tun"}, Capabilities: []string{"CAP_NET_ADMIN"},
	}})
	apply(t, s, orchestrator.Effect{Create: &orchestrator.Creation{Slot: 1, Desired: api.TaskState_TASK_STATE_RUNNING}})
	tasks := storetest.List[*api.Task](t, s, store.ByReferencedGrant("g"))
	if len(tasks) != 1 || len(tasks[0].GetGrants()) != 1 || tasks[0].GetGrants()[0].GetSpec().GetCapabilities()[0] != "CAP_NET_ADMIN" {
		t.Errorf("got tasks %v", tasks)
	}
}
