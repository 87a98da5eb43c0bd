package dispatcher_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store/storetest"
)

// A node says whether a task is ready, and the managers when that was: an update's times must not be a node's to choose.
func TestUpdateTaskStatus_ReadinessHasTheTimesOfTheManagers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		checked := assignedTask("t", "n1")
		checked.Spec.Container.Ready = &api.HealthConfig{Test: []string{"CMD", "probe"}}
		storetest.Create(t, c.store, node("n1"), checked, assignedTask("unchecked", "n1"))
		a := c.connect("n1", "m1").mustRegister()
		begun := time.Now()
		say := func(task string, state api.TaskState, r *api.Readiness) *api.Task {
			t.Helper()
			<-time.After(time.Second)
			if err := a.say(task, &api.TaskStatus{State: state, Readiness: r}); err != nil {
				t.Fatal(err)
			}
			return storetest.Get[*api.Task](t, c.store, task)
		}
		forged := timestamppb.New(begun.Add(-time.Hour))
		yes, no := &api.Readiness{Ready: true, ReadyAt: forged, LostAt: forged}, &api.Readiness{ReadyAt: forged, LostAt: forged}
		after := func(at *timestamppb.Timestamp) string {
			if at == nil {
				return "never"
			}
			return at.AsTime().Sub(begun).Truncate(time.Second).String()
		}
		const running = api.TaskState_TASK_STATE_RUNNING
		for i, tt := range []struct {
			state api.TaskState
			says  *api.Readiness
			want  string
		}{
			{api.TaskState_TASK_STATE_STARTING, yes, "unchecked"},
			{running, nil, "false never never"}, // as by a node that knows of no such check
			{running, yes, "true 3s never"},
			{running, no, "false 3s 4s"},
			{running, yes, "true 5s 4s"},
			{api.TaskState_TASK_STATE_FAILED, yes, "false 5s 4s"},
		} {
			got := say("t", tt.state, tt.says)
			text := "unchecked"
			if r := got.GetStatus().GetReadiness(); r != nil {
				text = fmt.Sprint(taskstate.Ready(got), " ", after(r.GetReadyAt()), " ", after(r.GetLostAt()))
			}
			if text != tt.want {
				t.Errorf("report %d: got %s, want %s", i+1, text, tt.want)
			}
		}
		if got := say("unchecked", running, no); !taskstate.Ready(got) || got.GetStatus().GetReadiness() != nil {
			t.Errorf("a task without a check: got %v", got.GetStatus())
		}
	})
}
