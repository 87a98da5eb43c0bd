package dispatcher_test

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/dispatcher"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store/storetest"
)

// FuzzRelay: whatever a manager says, only statuses of the named node's tasks are written, and they only go up (I6).
func FuzzRelay(f *testing.F) {
	seed := func(r *api.NodeReport) {
		data, err := proto.Marshal(&api.RelayRequest{Reports: []*api.NodeReport{r}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	seed(&api.NodeReport{NodeId: "n1", HeardAgo: durationpb.New(0), Address: "10.0.0.1", Description: &api.NodeDescription{Hostname: "h"}})
	for _, state := range append(taskstate.States(), api.TaskState_TASK_STATE_REMOVE) {
		for _, id := range []string{"mine", "theirs", "gone"} {
			seed(&api.NodeReport{NodeId: "n1", Statuses: []*api.TaskStatusUpdate{{TaskId: id, Status: &api.TaskStatus{State: state}}, {}, nil}})
		}
	}
	seed(&api.NodeReport{NodeId: "n1", HeardAgo: &durationpb.Duration{Seconds: -1 << 62, Nanos: 7}})
	f.Fuzz(func(t *testing.T, data []byte) {
		var request api.RelayRequest
		if len(data) > 1<<16 || proto.Unmarshal(data, &request) != nil {
			return
		}
		s := storetest.New(t)
		mine := assignedTask("mine", "n1")
		mine.Status.State = api.TaskState_TASK_STATE_STARTING
		storetest.Create(t, s, node("n1"), mine, assignedTask("theirs", "n2"))
		d, err := dispatcher.New(dispatcher.Config{Store: s})
		if err != nil {
			t.Fatal(err)
		}
		before := storetest.Get[*api.Task](t, s, "mine")
		if _, err := d.Relay(t.Context(), &request); err != nil {
			return
		}
		if got := storetest.Get[*api.Task](t, s, "theirs").GetStatus().GetState(); got != api.TaskState_TASK_STATE_ASSIGNED && !speaksOf(&request, "n2") {
			t.Errorf("another node's task went to %v", got)
		}
		after := storetest.Get[*api.Task](t, s, "mine")
		if after.GetStatus().GetState() < before.GetStatus().GetState() || after.GetDesiredState() != before.GetDesiredState() {
			t.Errorf("the task went from %v to %v", before, after)
		}
		if !taskstate.Reportable(after.GetStatus().GetState()) && after.GetMeta().GetVersion() != before.GetMeta().GetVersion() {
			t.Errorf("the task got the state %v", after.GetStatus().GetState())
		}
	})
}

// speaksOf reports whether a request speaks of a node.
func speaksOf(r *api.RelayRequest, id string) bool {
	for _, report := range r.GetReports() {
		if report.GetNodeId() == id {
			return true
		}
	}
	return false
}

// FuzzUpdateTaskStatus: whatever an agent says is refused or bounded.
func FuzzUpdateTaskStatus(f *testing.F) {
	for _, state := range append(taskstate.States(), api.TaskState_TASK_STATE_REMOVE) {
		data, err := proto.Marshal(&api.UpdateTaskStatusRequest{SessionId: "x", Updates: []*api.TaskStatusUpdate{
			{TaskId: "mine", Status: &api.TaskStatus{State: state, Message: fmt.Sprintf("%02000d", 1), Err: "é"}},
		}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var request api.UpdateTaskStatusRequest
		if len(data) > 1<<16 || proto.Unmarshal(data, &request) != nil {
			return
		}
		s := storetest.New(t)
		storetest.Create(t, s, node("n1"), assignedTask("mine", "n1"), assignedTask("theirs", "n2"))
		kept, err := dispatcher.CheckUpdates(s, "n1", request.GetUpdates())
		if err != nil {
			return
		}
		for _, u := range kept {
			if u.GetTaskId() == "theirs" || !taskstate.Reportable(u.GetStatus().GetState()) ||
				len(u.GetStatus().GetMessage()) > 1024 || len(u.GetStatus().GetErr()) > 1024 {
				t.Errorf("%v was let through", u)
			}
			if _, err := proto.Marshal(u); err != nil {
				t.Errorf("what was let through cannot be sent on: %v", err)
			}
		}
	})
}
