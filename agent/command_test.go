package agent_test

import (
	"context"
	"errors"
	"testing"

	"github.com/skep-io/skep/agent/executor"
	"github.com/skep-io/skep/internal/fault"
)

func TestRuntime_RunsCommandsInContainers(t *testing.T) {
	m := adopted(t)
	runtime := executor.NewSupervisor(m.client, discard())
	tk := newTask("t1", "serve")
	tk.Spec.Container.Env = []string{"K=V"}
	m.start(t, tk)
	got, err := runtime.Exec(t.Context(), "t1", executor.Command{Args: []string{"/bin/probe", "env"}, Env: []string{"MORE=x"}, MaxOutput: 1 << 16})
	if err != nil || got.ExitCode != 0 {
		t.Fatalf("%+v, %v", got, err)
	}
	contains(t, string(got.Output), "K=V\n", "MORE=x\n", "SKEP_TASK_NAME=web.2.t1\n")

	got, err = runtime.Exec(t.Context(), "t1", executor.Command{Args: []string{"/bin/probe", "exit", "3"}})
	if err != nil || got.ExitCode != 3 || len(got.Output) > 0 {
		t.Errorf("exit 3: %+v, %v", got, err)
	}
	got, err = runtime.Exec(t.Context(), "t1", executor.Command{Args: []string{"/bin/probe", "env"}, MaxOutput: 5})
	if err != nil || len(got.Output) != 5 {
		t.Errorf("5 bytes of output: %q, %v", got.Output, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := runtime.Exec(ctx, "t1", executor.Command{Args: []string{"/bin/probe", "serve"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := runtime.Exec(t.Context(), "t1", executor.Command{Args: []string{"/nothing"}}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("no such program: %v", err)
	}
	if _, err := runtime.Exec(t.Context(), "t2", executor.Command{Args: []string{"/bin/probe"}}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("no such container: %v", err)
	}
}
