package day

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/agent/secret"
	"github.com/skep-io/skep/agent/session"
	"github.com/skep-io/skep/agent/task"
	"github.com/skep-io/skep/api"
)

// agent is one run of a machine's agent: the session, the task manager and the secrets of package agent, joined as there.
type agent struct {
	machine *machine
	session *session.Client
	tasks   *task.Manager
	secrets secret.Holder
	wake    chan struct{}
	told    chan struct{} // closed once a manager told all tasks of this node
	once    sync.Once

	mu      sync.Mutex
	holding map[string]bool // guarded by mu: the ids of secrets
	id      string          // guarded by mu: of the last session

	stop    context.CancelFunc
	running sync.WaitGroup
}

// startAgent opens and runs the machine's agent.
func startAgent(m *machine) (*agent, error) {
	a := &agent{machine: m, wake: make(chan struct{}, 1), told: make(chan struct{}), holding: map[string]bool{}}
	var err error
	a.session, err = session.New(session.Config{
		Dir: m.dir, Managers: m.world.managerAddresses(), Handler: a, TLS: m.identity.TLS, Describe: m.describe, Logger: m.world.logger(m.name),
		Dial: func(address string) (*grpc.ClientConn, error) { return m.dialManager(address) },
	})
	if err != nil {
		return nil, err
	}
	a.tasks, err = task.Open(task.Config{Dir: m.dir, Executor: m.world.bug.executor(m.executor), Report: a.report, Logger: m.world.logger(m.name)})
	if err != nil {
		return nil, err
	}
	m.executor.attach(&a.secrets)
	ctx, cancel := context.WithCancel(context.Background())
	a.stop = cancel
	for _, part := range []func(context.Context) error{a.session.Run, a.tasks.Run, a.wakeTasks, a.startAlone} {
		a.running.Go(func() {
			if err := part(ctx); err != nil && !errors.Is(err, context.Canceled) {
				m.world.violated("the agent of %s ended: %v", m.name, err)
			}
		})
	}
	return a, nil
}

// close ends the agent. Containers go on.
func (a *agent) close() error {
	a.stop()
	a.running.Wait()
	a.secrets.Clear()
	return a.tasks.Close()
}

func (a *agent) report(id string, s *api.TaskStatus) {
	if told := a.machine.world.bug.report(a.machine.executor, s); told != nil {
		a.session.Report(id, told)
	}
}

// Registered implements session.Handler: what the last manager heard may not have reached the leader.
func (a *agent) Registered(r *api.SessionResponse) {
	a.mu.Lock()
	begun := a.id != r.GetSessionId()
	a.id = r.GetSessionId()
	a.mu.Unlock()
	if !begun {
		return
	}
	for id, s := range a.tasks.Statuses() {
		a.report(id, s)
	}
	a.wakeUp()
}

// Disconnected implements session.Handler.
func (a *agent) Disconnected(error) {}

// Assign implements session.Handler. Secrets are here before the tasks that need them, and go after them.
func (a *agent) Assign(ctx context.Context, complete bool, changes []*api.AssignmentChange) error {
	var tasks []*api.Task
	var ended []string
	arrived, gone := map[string]bool{}, map[string]bool{}
	for _, change := range a.machine.world.bug.assign(a.machine.executor, changes) {
		removed := change.GetAction() == api.AssignmentAction_ASSIGNMENT_ACTION_REMOVE
		t, s := change.GetTask(), change.GetSecret()
		switch {
		case t != nil && removed:
			ended = append(ended, t.GetId())
		case t != nil:
			a.machine.world.books.assigned(a.machine, t)
			tasks = append(tasks, t)
		case s != nil && removed:
			gone[s.GetId()] = true
		case s != nil:
			arrived[s.GetId()] = true
			a.secrets.Put(s.GetId(), s.GetVersion(), s.GetSpec().GetData())
		}
	}
	a.hold(func() { maps.Copy(a.holding, arrived) })
	if err := a.tasks.Assign(ctx, complete, tasks, ended); err != nil {
		return err
	}
	if complete {
		a.once.Do(func() { close(a.told) })
		a.secrets.Retain(func(id string) bool { return arrived[id] })
		a.hold(func() { a.holding = maps.Clone(arrived) })
	}
	for id := range gone {
		a.secrets.Remove(id)
	}
	a.hold(func() { maps.DeleteFunc(a.holding, func(id string, _ bool) bool { return gone[id] }) })
	if len(arrived) > 0 {
		a.wakeUp()
	}
	return nil
}

func (a *agent) hold(change func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change()
}

// held are the ids of the secrets that are here.
func (a *agent) held() (ids []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Sorted(maps.Keys(a.holding))
}

func (a *agent) wakeUp() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// wakeTasks makes waiting tasks try again when there is a reason to.
func (a *agent) wakeTasks(ctx context.Context) error {
	for {
		select {
		case <-a.wake:
			if err := a.tasks.Wake(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// startAlone has tasks started again that a loss of power ended, if no manager tells in time what is to become of them.
func (a *agent) startAlone(ctx context.Context) error {
	const alonePatience = 10 * time.Second
	select {
	case <-a.tasks.Adopted():
	case <-ctx.Done():
		return nil
	}
	select {
	case <-a.told:
		return nil
	case <-ctx.Done():
		return nil
	case <-time.After(alonePatience):
	}
	if err := a.tasks.Alone(ctx); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}
