package compose_test

import (
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/compose"
)

func TestCondition_Of(t *testing.T) {
	const (
		pair    = `spec{replicated{replicas:2}}`
		once    = `spec{replicated{replicas:1} task{restart{condition:RESTART_CONDITION_NONE}}}`
		job     = `spec{replicated_job{total_completions:1} task{restart{condition:RESTART_CONDITION_ON_FAILURE max_attempts:2}}}`
		running = `tasks{slot:1 status{state:TASK_STATE_RUNNING}} tasks{slot:2 status{state:TASK_STATE_RUNNING readiness{}}}`
		ended   = `tasks{slot:1 status{state:TASK_STATE_COMPLETE}}`
	)
	for _, test := range []struct {
		name      string
		condition compose.Condition
		service   string
		tasks     string
		want      compose.Progress
	}{
		{"no task yet", compose.Started, pair, ``, compose.Progress{Text: "0 out of 2 tasks running"}},
		{"running", compose.Started, pair, running, compose.Progress{Reached: true, Text: "2 out of 2 tasks running"}},
		{"one is not ready", compose.Healthy, pair, running, compose.Progress{Text: "1 out of 2 tasks healthy"}},
		{
			"ready", compose.Healthy, `spec{replicated{replicas:1}}`, `tasks{slot:1 status{state:TASK_STATE_RUNNING readiness{ready:true}}}`,
			compose.Progress{Reached: true, Text: "1 out of 1 tasks healthy"},
		},
		{
			"waits for a node", compose.Started, pair, `tasks{slot:1 status{state:TASK_STATE_PENDING err:"no suitable node"}}`,
			compose.Progress{Text: "0 out of 2 tasks running: no suitable node"},
		},
		{
			"the newest of a slot counts", compose.Started, `spec{replicated{replicas:1}}`,
			`tasks{slot:1 meta{created_at{seconds:2}} status{state:TASK_STATE_STARTING}} tasks{slot:1 meta{created_at{seconds:1}} status{state:TASK_STATE_RUNNING}}`,
			compose.Progress{Text: "0 out of 1 tasks running"},
		},
		{"a program that ran once has started", compose.Started, once, ended, compose.Progress{Reached: true, Text: "1 out of 1 tasks running"}},
		{"and completed", compose.Completed, once, ended, compose.Progress{Reached: true, Text: "1 out of 1 tasks completed"}},
		{"but is not healthy, and never will be", compose.Healthy, once, ended, compose.Progress{Text: "0 out of 1 tasks healthy", Failed: "a task ended"}},
		{
			"it failed and is not started again", compose.Completed, once, `tasks{slot:1 status{state:TASK_STATE_FAILED err:"exit code 1"}}`,
			compose.Progress{Text: "0 out of 1 tasks completed", Failed: "exit code 1"},
		},
		{"a job runs", compose.Completed, job, `tasks{slot:1 status{state:TASK_STATE_RUNNING}}`, compose.Progress{Text: "0 out of 1 tasks completed"}},
		{"a job is done", compose.Completed, job, ended, compose.Progress{Reached: true, Text: "1 out of 1 tasks completed"}},
		{
			"a job failed once", compose.Completed, job, `tasks{slot:1 restart_count:1 status{state:TASK_STATE_FAILED err:"exit code 1"}}`,
			compose.Progress{Text: "0 out of 1 tasks completed: exit code 1"},
		},
		{
			"a job failed for good", compose.Completed, job, `tasks{slot:1 restart_count:2 status{state:TASK_STATE_FAILED err:"exit code 1"}}`,
			compose.Progress{Text: "0 out of 1 tasks completed", Failed: "exit code 1"},
		},
		{"told to end", compose.Started, once, `tasks{slot:1 status{state:TASK_STATE_SHUTDOWN}}`, compose.Progress{Text: "0 out of 1 tasks running"}},
		{"none wanted", compose.Healthy, `spec{replicated{}}`, ``, compose.Progress{Reached: true, Text: "0 out of 0 tasks healthy"}},
		{
			"everywhere", compose.Started, `spec{global{}}`, `tasks{bound_node_id:"a" status{state:TASK_STATE_RUNNING}} tasks{bound_node_id:"b" status{state:TASK_STATE_RUNNING}}`,
			compose.Progress{Text: "2 out of 3 tasks running"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			service, tasks := &api.Service{}, &api.ListTasksResponse{}
			if err := prototext.Unmarshal([]byte(test.service), service); err != nil {
				t.Fatal(err)
			}
			if err := prototext.Unmarshal([]byte(test.tasks), tasks); err != nil {
				t.Fatal(err)
			}
			if got := test.condition.Of(service, tasks.GetTasks(), &api.ServiceCounts{Desired: 3, Total: 3}); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
