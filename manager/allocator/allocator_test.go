package allocator_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/allocator"
	"github.com/skep-io/skep/store/storetest"
)

func newTask(id string, state, desired api.TaskState, ports ...*api.PortConfig) *api.Task {
	return &api.Task{
		Id: id, ServiceId: "s", Slot: 1, Status: &api.TaskStatus{State: state}, DesiredState: desired,
		Endpoint: &api.EndpointSpec{Ports: ports},
	}
}

const (
	stateNew = api.TaskState_TASK_STATE_NEW
	pending  = api.TaskState_TASK_STATE_PENDING
	running  = api.TaskState_TASK_STATE_RUNNING
)

func TestStep_SettlesPorts(t *testing.T) {
	in := newTask("a", stateNew, running,
		&api.PortConfig{TargetPort: 80},
		&api.PortConfig{TargetPort: 53, PublishedPort: 5353, Protocol: api.Protocol_PROTOCOL_UDP, PublishMode: api.PublishMode_PUBLISH_MODE_HOST})
	before := proto.CloneOf(in)
	got := allocator.Step(time.Unix(7, 0), in)
	want := []*api.PortConfig{
		{TargetPort: 80, PublishedPort: 80, Protocol: api.Protocol_PROTOCOL_TCP, PublishMode: api.PublishMode_PUBLISH_MODE_HOST},
		{TargetPort: 53, PublishedPort: 5353, Protocol: api.Protocol_PROTOCOL_UDP, PublishMode: api.PublishMode_PUBLISH_MODE_HOST},
	}
	if diff := cmp.Diff(want, got.GetEndpoint().GetPorts(), protocmp.Transform()); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
	if got.GetStatus().GetState() != pending {
		t.Errorf("got state %v, want PENDING", got.GetStatus().GetState())
	}
	if !proto.Equal(in, before) {
		t.Error("the argument was changed")
	}
}

func TestStep_LeavesOthersAlone(t *testing.T) {
	for name, in := range map[string]*api.Task{
		"pending":       newTask("a", pending, running),
		"to be removed": newTask("a", stateNew, api.TaskState_TASK_STATE_REMOVE),
	} {
		if got := allocator.Step(time.Unix(7, 0), in); got != nil {
			t.Errorf("%s: got %v, want nil", name, got)
		}
	}
}

func TestLoop_AllocatesWhatIsThereAndWhatComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.New(t)
		storetest.Create(t, s, newTask("old", stateNew, running), newTask("gone", stateNew, api.TaskState_TASK_STATE_SHUTDOWN))
		loop, err := allocator.New(allocator.Config{Store: s})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- loop.Run(ctx) }()
		const many = 1000 // more than one transaction takes
		for i := range many {
			storetest.Create(t, s, newTask(fmt.Sprintf("t%d", i), stateNew, running))
		}
		synctest.Wait()
		for _, task := range storetest.List[*api.Task](t, s) {
			want := pending
			if task.GetId() == "gone" {
				want = stateNew
			}
			if got := task.GetStatus().GetState(); got != want {
				t.Fatalf("task %s: got %v, want %v", task.GetId(), got, want)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestNew_NeedsAStore(t *testing.T) {
	if _, err := allocator.New(allocator.Config{}); err == nil {
		t.Error("a config without store was accepted")
	}
}
