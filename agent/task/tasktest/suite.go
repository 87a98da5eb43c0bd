package tasktest

import (
	"context"
	"testing"
	"time"

	"github.com/skep-io/skep/agent/task"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// patience bounds each case of the suite; nothing in it takes longer unless it hangs.
const patience = 20 * time.Second

// Subject is an executor under test.
type Subject struct {
	// Executor is the first executor; never nil.
	Executor task.Executor
	// Restart ends the executor as the end of a daemon does and returns a new one over the same containers.
	Restart func(t *testing.T) task.Executor
	// Image is the reference of an image whose program understands the arguments in the package comment.
	Image string
	// Ready waits until the program of a task has installed its signal handlers; nil when there is nothing to wait for.
	Ready func(t *testing.T, id string)
	// Leftovers returns what is left on the node of a task, to be empty after Remove.
	Leftovers func(t *testing.T, id string) []string
}

// Suite runs the contract of [task.Executor] against executors that open makes.
func Suite(t *testing.T, open func(t *testing.T) Subject) {
	cases := map[string]func(*subject, context.Context, *testing.T){
		"life":                         (*subject).life,
		"stop":                         (*subject).stop,
		"kill what ignores its signal": (*subject).kill,
		"release and remove of nothing": func(s *subject, ctx context.Context, t *testing.T) {
			s.must(t, s.Executor.Release(ctx, "none"))
			s.must(t, s.Executor.Remove(ctx, "none"))
		},
		"unknown container": (*subject).unknown,
		"no image":          (*subject).noImage,
		"restart":           (*subject).restart,
		"exit while away":   (*subject).exitWhileAway,
		"no task any more":  (*subject).orphan,
	}
	for name, run := range cases {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			run(&subject{open(t)}, ctx, t)
		})
	}
}

// subject is a Subject with the methods that the cases share.
type subject struct {
	Subject
}

func (s *subject) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (s *subject) task(id string, args ...string) *api.Task {
	return &api.Task{
		Id: id, ServiceId: "s1", ServiceName: "web", Slot: 1, NodeId: "n1",
		Spec: &api.TaskSpec{Container: &api.ContainerSpec{Image: s.Image, Args: args}},
	}
}

// start adopts nothing, prepares and starts.
func (s *subject) start(ctx context.Context, t *testing.T, tk *api.Task) *api.ContainerStatus {
	t.Helper()
	_, _, err := s.Executor.Adopt(ctx, nil)
	s.must(t, err)
	s.must(t, s.Executor.Prepare(ctx, tk))
	c, err := s.Executor.Start(ctx, tk)
	s.must(t, err)
	return c
}

func (s *subject) ready(t *testing.T, id string) {
	t.Helper()
	if s.Ready != nil {
		s.Ready(t, id)
	}
}

func (s *subject) wait(ctx context.Context, t *testing.T, id string, code int32) {
	t.Helper()
	c, err := s.Executor.Wait(ctx, id)
	s.must(t, err)
	if c.GetExitCode() != code || c.GetPid() != 0 {
		t.Fatalf("exit code %d with pid %d, want %d with none", c.GetExitCode(), c.GetPid(), code)
	}
}

// removed releases and removes, twice, and looks for leftovers (I15).
func (s *subject) removed(ctx context.Context, t *testing.T, id string) {
	t.Helper()
	for range 2 {
		s.must(t, s.Executor.Release(ctx, id))
	}
	for range 2 {
		s.must(t, s.Executor.Remove(ctx, id))
	}
	if left := s.Leftovers(t, id); len(left) > 0 {
		t.Errorf("I15: left behind: %q", left)
	}
}

func (s *subject) life(ctx context.Context, t *testing.T) {
	if c := s.start(ctx, t, s.task("t1", "exit", "3")); c.GetPid() == 0 || c.GetContainerId() == "" {
		t.Errorf("started as %v", c)
	}
	s.wait(ctx, t, "t1", 3)
	s.wait(ctx, t, "t1", 3)
	s.removed(ctx, t, "t1")
}

func (s *subject) stop(ctx context.Context, t *testing.T) {
	tk := s.task("t1", "serve")
	s.start(ctx, t, tk)
	s.ready(t, "t1")
	s.must(t, s.Executor.Stop(ctx, tk))
	s.wait(ctx, t, "t1", 0)
	s.removed(ctx, t, "t1")
}

func (s *subject) kill(ctx context.Context, t *testing.T) {
	tk := s.task("t1", "stubborn")
	s.start(ctx, t, tk)
	s.ready(t, "t1")
	s.must(t, s.Executor.Stop(ctx, tk))
	s.must(t, s.Executor.Kill(ctx, "t1"))
	s.wait(ctx, t, "t1", killed)
	s.removed(ctx, t, "t1")
}

func (s *subject) unknown(ctx context.Context, t *testing.T) {
	_, _, err := s.Executor.Adopt(ctx, []string{"none"})
	s.must(t, err)
	if _, err := s.Executor.Wait(ctx, "none"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("Wait of nothing: %v, want NotFound", err)
	}
}

func (s *subject) noImage(ctx context.Context, t *testing.T) {
	_, _, err := s.Executor.Adopt(ctx, nil)
	s.must(t, err)
	tk := s.task("t1")
	tk.Spec.Container.Image = ""
	if err := s.Executor.Prepare(ctx, tk); err == nil || fault.KindOf(err) == fault.Unavailable {
		t.Errorf("Prepare without an image: %v, want a final error", err)
	}
	s.removed(ctx, t, "t1")
}

// adopt restarts the executor and returns what it found.
func (s *subject) adopt(ctx context.Context, t *testing.T, known ...string) map[string]*api.ContainerStatus {
	t.Helper()
	s.Executor = s.Restart(t)
	found, lost, err := s.Executor.Adopt(ctx, known)
	s.must(t, err)
	if len(lost) > 0 {
		t.Errorf("lost are %q, although the machine was not restarted", lost)
	}
	return found
}

func (s *subject) restart(ctx context.Context, t *testing.T) {
	tk := s.task("t1", "serve")
	started := s.start(ctx, t, tk)
	s.ready(t, "t1")
	found := s.adopt(ctx, t, "t1")
	if len(found) != 1 || found["t1"].GetPid() != started.GetPid() {
		t.Fatalf("adopted %v, want pid %d of t1", found, started.GetPid())
	}
	s.must(t, s.Executor.Stop(ctx, tk))
	s.wait(ctx, t, "t1", 0)
	s.removed(ctx, t, "t1")
}

func (s *subject) exitWhileAway(ctx context.Context, t *testing.T) {
	s.start(ctx, t, s.task("t1", "exit", "4"))
	s.wait(ctx, t, "t1", 4)
	if found := s.adopt(ctx, t, "t1"); len(found) != 1 || found["t1"].GetPid() != 0 {
		t.Fatalf("adopted %v, want the ended t1", found)
	}
	s.wait(ctx, t, "t1", 4)
	s.removed(ctx, t, "t1")
}

func (s *subject) orphan(ctx context.Context, t *testing.T) {
	s.start(ctx, t, s.task("t1", "serve"))
	if found := s.adopt(ctx, t); len(found) != 0 {
		t.Errorf("adopted %v, want nothing", found)
	}
	if left := s.Leftovers(t, "t1"); len(left) > 0 {
		t.Errorf("I15: left behind: %q", left)
	}
}
