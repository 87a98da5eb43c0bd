package view_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

func TestSecret_HasNoData(t *testing.T) {
	v := view.NewSecret(&api.Secret{Spec: &api.SecretSpec{Data: []byte("hunter2")}})
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text)+fmt.Sprintf("%+v", v), "hunter2") {
		t.Errorf("the value is shown: %s", text)
	}
}

// TestViews_TakeEmptyMessages shows what a daemon of another version may send: nothing.
func TestViews_TakeEmptyMessages(t *testing.T) {
	for _, v := range []any{
		view.NewNode(nil), view.NewService(nil), view.NewTask(nil), view.NewSecret(nil), view.NewImage(nil), view.NewInfo(&api.GetInfoResponse{}),
	} {
		if _, err := json.Marshal(v); err != nil {
			t.Errorf("%T: %v", v, err)
		}
	}
}

func TestTask_ShowsHealthAsDockersContainersDo(t *testing.T) {
	at := timestamppb.New(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	task := view.NewTask(&api.Task{Status: &api.TaskStatus{Container: &api.ContainerStatus{
		Health: api.HealthState_HEALTH_STATE_UNHEALTHY, HealthChecks: &api.ProbeLog{
			FailingStreak: 3, Results: []*api.ProbeResult{{Start: at, End: at, ExitCode: 1, Output: "refused\n"}},
		},
	}}})
	got, err := json.Marshal(task.Status.ContainerStatus.Health)
	want := `{"Status":"unhealthy","FailingStreak":3,"Log":[{"Start":"2030-01-01T00:00:00Z","End":"2030-01-01T00:00:00Z","ExitCode":1,"Output":"refused\n"}]}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	unchecked := view.NewTask(&api.Task{Status: &api.TaskStatus{Container: &api.ContainerStatus{}}})
	if unchecked.Status.ContainerStatus.Health != nil {
		t.Error("a container without checks has a health")
	}
}

func TestTask_ShowsReadiness(t *testing.T) {
	at := timestamppb.New(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	for state, want := range map[api.TaskState]string{
		api.TaskState_TASK_STATE_RUNNING: `{"Ready":true,"ReadyAt":"2030-01-01T00:00:00Z","FailingStreak":1,"Log":[]}`,
		api.TaskState_TASK_STATE_FAILED:  `{"Ready":false,"ReadyAt":"2030-01-01T00:00:00Z","FailingStreak":1,"Log":[]}`,
	} {
		task := view.NewTask(&api.Task{Status: &api.TaskStatus{State: state, Readiness: &api.Readiness{
			Ready: true, ReadyAt: at, Checks: &api.ProbeLog{FailingStreak: 1},
		}}})
		if got, err := json.Marshal(task.Status.Readiness); err != nil || string(got) != want {
			t.Errorf("%v: got %s, %v, want %s", state, got, err, want)
		}
	}
	if view.NewTask(&api.Task{Status: &api.TaskStatus{}}).Status.Readiness != nil {
		t.Error("a task without a check has a readiness")
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		view.Role(api.Role_ROLE_MANAGER):                                         "manager",
		view.UpdateOrder(api.UpdateOrder_UPDATE_ORDER_STOP_FIRST):                "stop-first",
		view.RestartCondition(api.RestartCondition_RESTART_CONDITION_ON_FAILURE): "on-failure",
		view.LocalNodeState(api.LocalNodeState_LOCAL_NODE_STATE_LOCKED):          "locked",
		view.PublishMode(api.PublishMode_PUBLISH_MODE_HOST):                      "host",
		view.Role(api.Role_ROLE_UNSPECIFIED):                                     "",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestReferences(t *testing.T) {
	for ref, want := range map[string][4]string{
		"docker.io/library/app:1":           {"app:1", "app:1", "app", "1"},
		"docker.io/me/app:1":                {"me/app:1", "me/app:1", "me/app", "1"},
		"skep.local/hello:2":                {"skep.local/hello:2", "skep.local/hello:2", "skep.local/hello", "2"},
		"docker.io/library/app:1@" + digest: {"app:1@" + digest, "app:1", "app", "1"},
		"docker.io/library/app@" + digest:   {"app@" + digest, "app@" + digest, "app", ""},
		"Not A Reference":                   {"Not A Reference", "Not A Reference", "", ""},
	} {
		name, tag := view.SplitTag(ref)
		if got := [4]string{view.Familiar(ref), view.ShortImage(ref), name, tag}; got != want {
			t.Errorf("%s: got %q, want %q", ref, got, want)
		}
	}
	if got := view.ShortDigest(digest); got != "4bcff63911fc" {
		t.Errorf("short digest: got %s", got)
	}
}

const digest = "sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1"
