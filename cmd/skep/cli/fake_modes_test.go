package cli_test

import (
	"fmt"
	"strconv"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// endTask has a task, by its place, end with an exit code, and nothing follow it. The caller holds mu.
func (f *fake) endTask(name, code string) error {
	number, err := strconv.ParseInt(code, 10, 32)
	if err != nil {
		return err
	}
	for id, task := range f.tasks {
		if fmt.Sprintf("%s.%d", task.GetServiceName(), task.GetSlot()) != name {
			continue
		}
		ended := proto.CloneOf(task)
		ended.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN
		ended.Status.State, ended.Status.Container = api.TaskState_TASK_STATE_FAILED, &api.ContainerStatus{ExitCode: int32(number)}
		ended.Status.Err = "task: non-zero exit (" + code + ")"
		f.tasks[id] = ended
		return nil
	}
	return fmt.Errorf("no task %s", name)
}
