package cli_test

import (
	"fmt"
	"maps"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

// deleteDoomed deletes the task that is doomed, if there is one.
func (f *fake) deleteDoomed() error {
	f.mu.Lock()
	doomed := f.doomed
	f.doomed = ""
	f.mu.Unlock()
	if doomed == "" {
		return nil
	}
	return f.change(func() error {
		maps.DeleteFunc(f.tasks, func(_ string, task *api.Task) bool {
			return view.TaskName(task.GetServiceName(), task.GetSlot()) == doomed
		})
		return nil
	})
}

// endTask has a task, by its place, end with an exit code or orphaned, and nothing follow it. The caller holds mu.
func (f *fake) endTask(name, how string) error {
	status := &api.TaskStatus{State: api.TaskState_TASK_STATE_ORPHANED, Err: "its node is gone"}
	if how != "orphaned" {
		code, err := strconv.ParseInt(how, 10, 32)
		if err != nil {
			return err
		}
		status = &api.TaskStatus{
			State: api.TaskState_TASK_STATE_FAILED, Err: "task: non-zero exit (" + how + ")", Container: &api.ContainerStatus{ExitCode: int32(code)},
		}
	}
	for id, task := range f.tasks {
		if view.TaskName(task.GetServiceName(), task.GetSlot()) != name {
			continue
		}
		ended := proto.CloneOf(task)
		ended.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN
		status.Timestamp = ended.GetStatus().GetTimestamp()
		ended.Status = status
		f.tasks[id] = ended
		return nil
	}
	return fmt.Errorf("no task %s", name)
}
