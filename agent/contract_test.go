package agent_test

import (
	"log/slog"
	"testing"

	"github.com/skep-io/skep/agent/task"
	"github.com/skep-io/skep/agent/task/tasktest"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestExecutor_KeepsTheContract(t *testing.T) {
	m := newMachine(t)
	tasktest.Suite(t, func(t *testing.T) tasktest.Subject {
		return tasktest.Subject{Executor: m.restart(t), Restart: func(t *testing.T) task.Executor { return m.restart(t) }, Image: probeImage, Ready: m.ready, Leftovers: m.leftovers}
	})
}
