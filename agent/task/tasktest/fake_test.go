package tasktest_test

import (
	"testing"

	"github.com/skep-io/skep/agent/task"
	"github.com/skep-io/skep/agent/task/tasktest"
)

func TestFake_KeepsTheContract(t *testing.T) {
	tasktest.Suite(t, func(*testing.T) tasktest.Subject {
		f := tasktest.NewFake()
		return tasktest.Subject{
			Executor: f, Image: "app",
			Restart: func(*testing.T) task.Executor { return f },
			Leftovers: func(_ *testing.T, id string) []string {
				if f.Empty() {
					return nil
				}
				return []string{id}
			},
		}
	})
}
