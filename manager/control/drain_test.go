package control_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// setNodeSpec changes worker1's spec as an operator does.
func (s *swarm) setNodeSpec(t *testing.T, change func(*api.NodeSpec)) (*api.UpdateNodeResponse, error) {
	t.Helper()
	n := storetest.Get[*api.Node](t, s.store, "worker1")
	spec := proto.CloneOf(n.GetSpec())
	change(spec)
	ctx := authz.NewContext(t.Context(), authz.Caller{Kind: api.Caller_CALLER_OPERATOR, User: "olga"})
	return s.server.UpdateNode(ctx, &api.UpdateNodeRequest{NodeId: "worker1", Version: n.GetMeta().GetVersion(), Spec: spec})
}

// A drain counts from when it was asked for with its timeout, by the manager's clock, and is forgotten with it.
func TestUpdateNode_NotesSinceWhenItDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		const drain = api.Availability_AVAILABILITY_DRAIN
		began := time.Now()
		minutes := func(n int) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Minute) }
		for _, step := range []struct {
			what         string
			availability api.Availability
			timeout      *durationpb.Duration
			since        time.Duration // negative is none
			kept         *durationpb.Duration
		}{
			{"drained", drain, minutes(5), 0, minutes(5)},
			{"the same again", drain, minutes(5), 0, minutes(5)},
			{"another timeout", drain, minutes(9), 2 * time.Minute, minutes(9)},
			{"without one", drain, nil, 3 * time.Minute, nil},
			{"active, as a client says that knows no timeouts", api.Availability_AVAILABILITY_ACTIVE, minutes(9), -1, nil},
		} {
			response, err := s.setNodeSpec(t, func(spec *api.NodeSpec) { spec.Availability, spec.DrainTimeout = step.availability, step.timeout })
			if err != nil {
				t.Fatalf("%s: %v", step.what, err)
			}
			n := response.GetNode()
			if at := n.GetStatus().GetDrainBeganAt(); (step.since < 0) != (at == nil) || at != nil && !at.AsTime().Equal(began.Add(step.since)) {
				t.Errorf("%s: it began %v, want %v", step.what, at.AsTime(), began.Add(step.since))
			}
			if !proto.Equal(n.GetSpec().GetDrainTimeout(), step.kept) {
				t.Errorf("%s: the timeout is %v", step.what, n.GetSpec().GetDrainTimeout())
			}
			time.Sleep(time.Minute)
		}
		_, err := s.setNodeSpec(t, func(spec *api.NodeSpec) { spec.Availability, spec.DrainTimeout = drain, durationpb.New(-time.Second) })
		wantFault(t, err, fault.Invalid, "drain_timeout: cannot be negative")
	})
}

func onWorker1(id string, slot uint64, state api.TaskState) *api.Task {
	return &api.Task{
		Id: id, ServiceId: "s", ServiceName: "web", Slot: slot, NodeId: "worker1", DesiredState: api.TaskState_TASK_STATE_RUNNING,
		Spec: &api.TaskSpec{Container: &api.ContainerSpec{}}, Status: &api.TaskStatus{State: state},
	}
}

// What is left on a drained node is counted, with why it does not go on; of other nodes nothing is said.
func TestGetNode_SaysHowFarADrainIs(t *testing.T) {
	next := func(change func(*api.Task)) *api.Task {
		n := onWorker1("next", 1, api.TaskState_TASK_STATE_PENDING)
		n.NodeId, n.Meta = "", &api.Meta{CreatedAt: timestamppb.New(time.Unix(200, 0))}
		change(n)
		return n
	}
	for name, tt := range map[string]struct {
		next *api.Task
		down bool
		want string
	}{
		"going on": {next(func(*api.Task) {}), false, ""},
		"placed":   {next(func(n *api.Task) { n.NodeId, n.Status.Err = "worker2", "x" }), false, ""},
		"no node":  {next(func(n *api.Task) { n.Status.Err = "no suitable node" }), false, "web.1: no node takes it: no suitable node"},
		"ended": {next(func(n *api.Task) {
			n.NodeId, n.Status.State, n.Status.Err = "worker2", api.TaskState_TASK_STATE_FAILED, "exit 1"
		}), false, "web.1: it ended elsewhere: exit 1"},
		"node is silent": {next(func(*api.Task) {}), true, "the node is down"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSwarm(t)
			ended := onWorker1("ended", 3, api.TaskState_TASK_STATE_COMPLETE)
			other := onWorker1("other", 1, api.TaskState_TASK_STATE_RUNNING)
			other.ServiceId, other.ServiceName = "o", "db"
			stops := onWorker1("stops", 2, api.TaskState_TASK_STATE_RUNNING)
			stops.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN
			storetest.Create(t, s.store, onWorker1("runs", 1, api.TaskState_TASK_STATE_RUNNING), stops, ended, other, tt.next)
			if got, err := s.GetNode(t.Context(), &api.GetNodeRequest{Node: "worker1"}); err != nil || got.GetNode().GetStatus().GetDrain() != nil {
				t.Errorf("a node that is active: %v, %v", got, err)
			}
			drained := proto.CloneOf(storetest.Get[*api.Node](t, s.store, "worker1"))
			drained.Spec.Availability = api.Availability_AVAILABILITY_DRAIN
			drained.Status.DrainBeganAt = timestamppb.New(time.Unix(100, 0))
			if tt.down {
				drained.Status.State = api.NodeState_NODE_STATE_DOWN
			}
			if err := s.store.Update(t.Context(), "", func(tx store.Tx) error { return tx.Update(drained) }); err != nil {
				t.Fatal(err)
			}
			list, err := s.ListNodes(t.Context(), &api.ListNodesRequest{})
			if err != nil {
				t.Fatal(err)
			}
			got := list.GetNodes()[0].GetStatus().GetDrain()
			services := got.GetServices()
			if got.GetTasksLeft() != 3 || len(services) != 2 || services[0].GetServiceName() != "db" || services[1].GetTasksLeft() != 2 {
				t.Fatalf("got %v", got)
			}
			if held := services[1].GetHeld(); (tt.want == "") != (held == "") || !strings.HasPrefix(held, tt.want) {
				t.Errorf("held up by %q, want %q", held, tt.want)
			}
		})
	}
}

// Who drains a node hears of the services whose next tasks have to wait for it, and of no others.
func TestUpdateNode_WarnsOfVolumes(t *testing.T) {
	s := newSwarm(t)
	volume := func(name string) []*api.Mount {
		return []*api.Mount{{Type: api.MountType_MOUNT_TYPE_VOLUME, Source: name, Target: "/v"}}
	}
	for _, name := range []string{"db", "new", "moved", "gone", "ended", "everywhere", "stateless"} {
		service := &api.Service{Id: name, Spec: web(func(spec *api.ServiceSpec) {
			spec.Annotations.Name, spec.Task.Container.Mounts = name, volume("data")
		})}
		task := onWorker1("task-"+name, 1, api.TaskState_TASK_STATE_RUNNING)
		task.ServiceId, task.ServiceName, task.Spec.Container.Mounts = name, name, volume("data")
		task.Status.Container = &api.ContainerStatus{ContainerId: "c"}
		switch name {
		case "new": // nothing of it has run yet: no data
			task.Status = &api.TaskStatus{State: api.TaskState_TASK_STATE_PREPARING}
		case "moved": // its next task has another volume
			service.Spec.Task.Container.Mounts[0].Source = "other"
		case "ended":
			task.Status.State = api.TaskState_TASK_STATE_COMPLETE
		case "everywhere": // a global service's slot ends with its node
			task.BoundNodeId = "worker1"
		case "stateless":
			service.Spec.Task.Container.Mounts[0].VolumeAnywhere = true
		}
		if name != "gone" {
			storetest.Create(t, s.store, service)
		}
		storetest.Create(t, s.store, task)
	}
	drain := func(spec *api.NodeSpec) { spec.Availability = api.Availability_AVAILABILITY_DRAIN }
	response, err := s.setNodeSpec(t, drain)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"tasks of db wait until node host-worker1 is active again: the data of their volumes is there"}
	if got := response.GetWarnings(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	response, err = s.setNodeSpec(t, drain)
	if err != nil || len(response.GetWarnings()) > 0 {
		t.Errorf("again: %v, %v", response.GetWarnings(), err)
	}
}
