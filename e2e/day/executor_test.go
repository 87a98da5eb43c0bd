package day

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/skep-io/skep/agent/secret"
	"github.com/skep-io/skep/agent/task"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// The exit codes of processes that SIGKILL and SIGTERM ended.
const (
	killedCode  = 128 + 9
	stoppedCode = 128 + 15
)

// executor is a machine's containers: they take as long as the seed says, and fail as their image and the seed say. It keeps its own
// books, of what really ran.
type executor struct {
	machine *machine

	mu sync.Mutex
	// The fields below are guarded by mu.
	rng *rand.Rand
	// containers are those that were started and not released, kept the tasks that were prepared and not removed.
	containers map[string]*container
	kept       map[string]bool
	pid        int32
	// secrets are those that the running agent holds.
	secrets *secret.Holder
}

type container struct {
	status *api.ContainerStatus
	exited chan struct{}
	until  *time.Timer // its own end, or nil
	told   bool        // it got the stop signal: however it ends, it did not do its work
}

var _ task.Executor = (*executor)(nil)

func newExecutor(m *machine, seed uint64) *executor {
	return &executor{machine: m, rng: rand.New(rand.NewPCG(seed, 2)), containers: map[string]*container{}, kept: map[string]bool{}}
}

// between draws a duration. It is longer than nothing.
func (e *executor) between(from, to time.Duration) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	return from + time.Duration(e.rng.Int64N(int64(to-from)))
}

func (e *executor) chance(p float64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.rng.Float64() < p
}

// attach gives the containers to a new run of the agent.
func (e *executor) attach(secrets *secret.Holder) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.secrets = secrets
}

func (e *executor) has(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ok := e.secrets.Get(id)
	return ok
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// behaviour is what the tag of an image says of the programs in it.
func behaviour(t *api.Task) string {
	image, _, _ := strings.Cut(t.GetSpec().GetContainer().GetImage(), "@")
	return image[strings.LastIndexByte(image, ':')+1:]
}

// Adopt implements [task.Executor].
func (e *executor) Adopt(_ context.Context, known []string) (found map[string]*api.ContainerStatus, lost []string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	keep := map[string]bool{}
	for _, id := range known {
		keep[id] = true
	}
	found = map[string]*api.ContainerStatus{}
	for id, c := range e.containers {
		if keep[id] {
			found[id] = c.status
			continue
		}
		e.exit(id, killedCode)
		delete(e.containers, id)
		delete(e.kept, id)
	}
	return found, nil, nil
}

// Prepare implements [task.Executor]: it takes as long as an image does that is fetched or there.
func (e *executor) Prepare(ctx context.Context, t *api.Task) error {
	if err := pause(ctx, e.between(50*time.Millisecond, 3*time.Second)); err != nil {
		return err
	}
	if behaviour(t) == "missing" {
		return fault.New(fault.NotFound, "no node has the image")
	}
	for _, s := range t.GetSpec().GetContainer().GetSecrets() {
		if !e.has(s.GetSecretId()) {
			return fault.New(fault.Unavailable, "secret %s is not here", s.GetSecretName())
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.kept[t.GetId()] = true
	return nil
}

// Start implements [task.Executor].
func (e *executor) Start(ctx context.Context, t *api.Task) (*api.ContainerStatus, error) {
	if err := pause(ctx, e.between(20*time.Millisecond, time.Second)); err != nil {
		return nil, err
	}
	if behaviour(t) == "broken" {
		return nil, fault.New(fault.Invalid, "the program is missing")
	}
	life, code := e.life(t)
	e.mu.Lock()
	defer e.mu.Unlock()
	id := t.GetId()
	if c, ok := e.containers[id]; ok {
		return c.status, nil
	}
	e.pid++
	c := &container{status: &api.ContainerStatus{ContainerId: id, Pid: e.pid}, exited: make(chan struct{})}
	e.containers[id] = c
	e.machine.world.books.started(e.machine, t)
	if life > 0 {
		c.until = time.AfterFunc(life, func() {
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.containers[id] == c && (behaviour(t) != "app" || !e.machine.world.calm()) {
				e.exit(id, code)
			}
		})
	}
	return c.status, nil
}

// life is how long a program runs by itself and how it ends; 0 is for ever.
func (e *executor) life(t *api.Task) (time.Duration, int32) {
	switch behaviour(t) {
	case "crash":
		return e.between(100*time.Millisecond, 3*time.Second), 1
	case "job":
		life := e.between(time.Second, time.Minute)
		if e.chance(0.15) && !e.machine.world.calm() {
			return life, 1
		}
		return life, 0
	default:
		if e.chance(0.02) { // a server that crashes now and then
			return e.between(time.Minute, 20*time.Minute), 1
		}
		return 0, 0
	}
}

// exit ends a process that runs. e.mu is held.
func (e *executor) exit(id string, code int32) {
	c, ok := e.containers[id]
	if !ok || c.status.GetPid() == 0 {
		return
	}
	if c.until != nil {
		c.until.Stop()
	}
	c.status = &api.ContainerStatus{ContainerId: id, ExitCode: code}
	e.machine.world.books.ended(id, code == 0 && !c.told)
	close(c.exited)
}

// powerOff ends all processes at once, and their containers are gone.
func (e *executor) powerOff() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id := range e.containers {
		e.exit(id, killedCode)
	}
	clear(e.containers)
}

// wipe forgets all that the machine had.
func (e *executor) wipe() {
	e.powerOff()
	e.mu.Lock()
	defer e.mu.Unlock()
	clear(e.kept)
}

// Wait implements [task.Executor].
func (e *executor) Wait(ctx context.Context, id string) (*api.ContainerStatus, error) {
	e.mu.Lock()
	c, ok := e.containers[id]
	e.mu.Unlock()
	if !ok {
		return nil, fault.New(fault.NotFound, "no container of task %s", id)
	}
	select {
	case <-c.exited:
		e.mu.Lock()
		defer e.mu.Unlock()
		return c.status, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Probe implements [task.Executor]: no service of the day has a health check.
func (e *executor) Probe(_ context.Context, t *api.Task, _ api.HealthState, _ func(*api.ContainerStatus)) error {
	return fault.New(fault.Precondition, "task %s has no health check", t.GetId())
}

// ProbeReady implements [task.Executor]: a program is ready after a while.
func (e *executor) ProbeReady(ctx context.Context, t *api.Task, ready bool, tell func(*api.Readiness, string)) error {
	if !ready {
		if err := pause(ctx, e.between(100*time.Millisecond, 5*time.Second)); err != nil {
			return err
		}
		tell(&api.Readiness{Ready: true}, "")
	}
	_, err := e.Wait(ctx, t.GetId())
	if err == nil {
		err = fault.New(fault.Precondition, "container of task %s has ended", t.GetId())
	}
	return err
}

// Refresh implements [task.Executor].
func (e *executor) Refresh(context.Context, *api.Task) ([]*api.ReceivedValue, error) { return nil, nil }

// Stop implements [task.Executor]: most programs end soon after the signal, some ignore it.
func (e *executor) Stop(_ context.Context, t *api.Task) error {
	ignores, wait, id := e.chance(0.05), e.between(10*time.Millisecond, 2*time.Second), t.GetId()
	e.mu.Lock()
	defer e.mu.Unlock()
	c, ok := e.containers[id]
	if !ok || c.status.GetPid() == 0 {
		return nil
	}
	c.told = true
	if ignores {
		return nil
	}
	if c.until != nil {
		c.until.Stop()
	}
	c.until = time.AfterFunc(wait, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.containers[id] == c {
			e.exit(id, stoppedCode)
		}
	})
	return nil
}

// Kill implements [task.Executor].
func (e *executor) Kill(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.exit(id, killedCode)
	return nil
}

// Release implements [task.Executor].
func (e *executor) Release(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c, ok := e.containers[id]; ok && c.status.GetPid() != 0 {
		e.machine.world.violated("the container of task %s on %s was released while its process runs", id, e.machine.name)
		return fmt.Errorf("task %s runs", id)
	}
	delete(e.containers, id)
	return nil
}

// Remove implements [task.Executor].
func (e *executor) Remove(ctx context.Context, id string) error {
	if err := e.Release(ctx, id); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.kept, id)
	return nil
}

// holdings are the tasks that have a container here, and those of which something is kept.
func (e *executor) holdings() (containers map[string]bool, kept map[string]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	containers, kept = map[string]bool{}, map[string]bool{}
	for id := range e.containers {
		containers[id] = true
	}
	for id := range e.kept {
		kept[id] = true
	}
	return containers, kept
}
