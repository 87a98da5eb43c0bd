package tasktest

import (
	"context"
	"strconv"
	"sync"

	"github.com/skep-io/skep/agent/task"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// killed is the exit code of a process that SIGKILL ended.
const killed = 128 + 9

// Fake is an executor in memory. Make one with NewFake.
type Fake struct {
	mu sync.Mutex
	// The fields below are guarded by mu.

	// containers are those that were started and not released, by task id.
	containers map[string]*container
	// logs are the ids whose log is kept: they were prepared and not removed.
	logs map[string]bool
	// calls is what was asked for, such as "start t1", in order.
	calls []string
	// errs are the errors that the next calls return, by "operation id".
	errs map[string][]error
	pid  int32
	// lost are the ids that ended with the machine.
	lost []string
}

type container struct {
	status   *api.ContainerStatus
	stubborn bool
	// exited is closed when the process has ended.
	exited chan struct{}
	// probed has what is told of its health, and ready of its readiness.
	probed chan *api.ContainerStatus
	ready  chan *api.Readiness
}

var _ task.Executor = (*Fake)(nil)

// NewFake returns an executor with no containers.
func NewFake() *Fake {
	return &Fake{containers: map[string]*container{}, logs: map[string]bool{}, errs: map[string][]error{}, pid: 100}
}

// FailNext makes the next call of an operation ("prepare", "start", "wait", "stop", "kill", "release", "remove", "adopt") for a
// task return err. Several add up.
func (f *Fake) FailNext(operation, id string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := operation + " " + id
	f.errs[key] = append(f.errs[key], err)
}

// Exit ends the process of a task from inside.
func (f *Fake) Exit(id string, code int32, oom bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.exit(id, code, oom)
}

// Vanish removes the container of a task behind the manager's back, as a reboot does.
func (f *Fake) Vanish(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.containers, id)
}

// Reboot ends the processes of all tasks, as a restart of the machine does: each with an exit code, since it was shut down in order.
func (f *Fake) Reboot(code int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id := range f.containers {
		f.exit(id, code, false)
		f.lost = append(f.lost, id)
	}
}

// Calls returns what was asked for so far, such as "start t1", in order.
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.calls...)
}

// Empty says whether nothing is left of any task.
func (f *Fake) Empty() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.containers) == 0 && len(f.logs) == 0
}

// called notes a call and returns the error that it is to fail with. f.mu is held.
func (f *Fake) called(operation, id string) error {
	key := operation + " " + id
	f.calls = append(f.calls, key)
	if errs := f.errs[key]; len(errs) > 0 {
		f.errs[key] = errs[1:]
		return errs[0]
	}
	return nil
}

func (f *Fake) exit(id string, code int32, oom bool) {
	c, ok := f.containers[id]
	if !ok || c.status.GetPid() == 0 {
		return
	}
	c.status = &api.ContainerStatus{ContainerId: id, ExitCode: code, OomKilled: oom}
	close(c.exited)
}

// Adopt implements [task.Executor].
func (f *Fake) Adopt(_ context.Context, known []string) (map[string]*api.ContainerStatus, []string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.called("adopt", ""); err != nil {
		return nil, nil, err
	}
	keep := map[string]bool{}
	for _, id := range known {
		keep[id] = true
	}
	out := map[string]*api.ContainerStatus{}
	for id, c := range f.containers {
		if !keep[id] {
			f.exit(id, killed, false)
			delete(f.containers, id)
			delete(f.logs, id)
			continue
		}
		out[id] = c.status
	}
	lost := f.lost
	f.lost = nil
	return out, lost, nil
}

// Prepare implements [task.Executor].
func (f *Fake) Prepare(_ context.Context, t *api.Task) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.called("prepare", t.GetId()); err != nil {
		return err
	}
	if t.GetSpec().GetContainer().GetImage() == "" {
		return fault.New(fault.Invalid, "the service names no image")
	}
	f.logs[t.GetId()] = true
	return nil
}

// Start implements [task.Executor].
func (f *Fake) Start(_ context.Context, t *api.Task) (*api.ContainerStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := t.GetId()
	if err := f.called("start", id); err != nil {
		return nil, err
	}
	args := t.GetSpec().GetContainer().GetArgs()
	f.pid++
	started := &api.ContainerStatus{ContainerId: id, Pid: f.pid}
	if len(args) > 0 && args[0] == "checked" {
		started.Health = api.HealthState_HEALTH_STATE_STARTING
	}
	f.containers[id] = &container{
		status: started, exited: make(chan struct{}), probed: make(chan *api.ContainerStatus), ready: make(chan *api.Readiness),
		stubborn: len(args) > 0 && args[0] == "stubborn",
	}
	if len(args) == 2 && args[0] == "exit" {
		code, err := strconv.ParseInt(args[1], 10, 32)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err)
		}
		f.exit(id, int32(code), false)
	}
	return started, nil
}

// Refresh implements [task.Executor].
func (f *Fake) Refresh(_ context.Context, t *api.Task) ([]*api.ReceivedValue, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return nil, f.called("refresh", t.GetId())
}

// Wait implements [task.Executor].
func (f *Fake) Wait(ctx context.Context, id string) (*api.ContainerStatus, error) {
	f.mu.Lock()
	err := f.called("wait", id)
	c, ok := f.containers[id]
	f.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fault.New(fault.NotFound, "no container of task %s", id)
	}
	select {
	case <-c.exited:
		f.mu.Lock()
		defer f.mu.Unlock()
		return c.status, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Probed has the probe of a task whose first argument is "checked" tell something of its health.
func (f *Fake) Probed(ctx context.Context, id string, c *api.ContainerStatus) {
	say(ctx, f.probes(id).probed, c)
}

// ProbedReady has the probe of a task's readiness tell something.
func (f *Fake) ProbedReady(ctx context.Context, id string, r *api.Readiness) {
	say(ctx, f.probes(id).ready, r)
}

func (f *Fake) probes(id string) *container {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.containers[id]
}

func say[T any](ctx context.Context, to chan<- T, what T) {
	select {
	case to <- what:
	case <-ctx.Done():
	}
}

// Probe implements [task.Executor]: it tells what Probed says.
func (f *Fake) Probe(ctx context.Context, t *api.Task, _ api.HealthState, tell func(*api.ContainerStatus)) error {
	return probe(ctx, f, "probe", t.GetId(), func(c *container) <-chan *api.ContainerStatus { return c.probed }, tell)
}

// ProbeReady implements [task.Executor]: it tells what ProbedReady says.
func (f *Fake) ProbeReady(ctx context.Context, t *api.Task, _ bool, tell func(*api.Readiness, string)) error {
	return probe(ctx, f, "probe readiness", t.GetId(), func(c *container) <-chan *api.Readiness { return c.ready }, func(r *api.Readiness) {
		why := ""
		if !r.GetReady() {
			why = "exit code 1: no answer"
		}
		tell(r, why)
	})
}

func probe[T any](ctx context.Context, f *Fake, operation, id string, from func(*container) <-chan T, tell func(T)) error {
	f.mu.Lock()
	err := f.called(operation, id)
	c, ok := f.containers[id]
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if !ok {
		return fault.New(fault.NotFound, "no container of task %s", id)
	}
	for {
		select {
		case news := <-from(c):
			tell(news)
		case <-c.exited:
			return fault.New(fault.Precondition, "container of task %s has ended", id)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Stop implements [task.Executor].
func (f *Fake) Stop(_ context.Context, t *api.Task) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.called("stop", t.GetId()); err != nil {
		return err
	}
	if c, ok := f.containers[t.GetId()]; ok && !c.stubborn {
		f.exit(t.GetId(), 0, false)
	}
	return nil
}

// Kill implements [task.Executor].
func (f *Fake) Kill(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.called("kill", id); err != nil {
		return err
	}
	f.exit(id, killed, false)
	return nil
}

// Release implements [task.Executor].
func (f *Fake) Release(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.called("release", id); err != nil {
		return err
	}
	delete(f.containers, id)
	return nil
}

// Remove implements [task.Executor].
func (f *Fake) Remove(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.called("remove", id); err != nil {
		return err
	}
	delete(f.containers, id)
	delete(f.logs, id)
	return nil
}
