package task

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

const (
	// inboxSize is the number of facts that wait for a runner; one that is full makes the sender wait.
	inboxSize = 16
	// adoptTimeout bounds one try to learn from the executor what runs; adoptMin is the time before the second one, which
	// doubles up to adoptMax.
	adoptTimeout = 30 * time.Second
	adoptMin     = 250 * time.Millisecond
	adoptMax     = 15 * time.Second
)

// Config is what a Manager needs.
type Config struct {
	// Dir is an existing directory for the database.
	Dir string
	// Executor runs the containers; never nil.
	Executor Executor
	// Report is told every new status. It must not block, and must not modify it; never nil.
	Report func(id string, s *api.TaskStatus)
	// Logger is used for what an administrator must know; nil is silence.
	Logger *slog.Logger
}

// Manager runs the tasks of this node. Make one with Open, call Run once, then Close.
type Manager struct {
	// constant after Open
	executor Executor
	report   func(id string, s *api.TaskStatus)
	log      *slog.Logger
	db       *database
	requests chan request
	finished chan string
	// adopted is closed once the tasks of the last run are continued.
	adopted chan struct{}

	// owned by Run
	runners map[string]*runner
	tasks   sync.WaitGroup
	// reached says that a manager told what is assigned, or that this node is to start nothing by itself.
	reached bool

	mu sync.Mutex
	// statuses has the last status of each task that is not forgotten, and assigned what managers said of it last; guarded by mu.
	statuses map[string]*api.TaskStatus
	assigned map[string]*api.Task
	// forgotten is closed, and replaced, when a task is forgotten; guarded by mu.
	forgotten chan struct{}
}

// request is something that Run does for a caller.
type request struct {
	do   func(ctx context.Context) error
	done chan error
}

// Open opens the database. It returns ErrVersion, ErrDamaged and ErrLocked, among others.
func Open(cfg Config) (*Manager, error) {
	db, err := openDatabase(cfg.Dir)
	if err != nil {
		return nil, err
	}
	log := cfg.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Manager{
		executor: cfg.Executor, report: cfg.Report, log: log, db: db,
		requests: make(chan request), finished: make(chan string), adopted: make(chan struct{}), forgotten: make(chan struct{}),
		runners: map[string]*runner{}, statuses: map[string]*api.TaskStatus{},
		assigned: map[string]*api.Task{},
	}, nil
}

// Close closes the database. Run has ended before.
func (m *Manager) Close() error { return m.db.close() }

// Run continues the tasks of the last run and then serves Assign until ctx ends. Containers go on running after it.
func (m *Manager) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer m.tasks.Wait()
	defer stop()
	if err := m.adopt(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	for {
		select {
		case r := <-m.requests:
			r.done <- r.do(ctx)
		case id := <-m.finished:
			m.forget(m.allFinished(id))
		case <-ctx.Done():
			return nil
		}
	}
}

// adopt continues what the last run of the daemon left, as soon as the executor can say what that is.
func (m *Manager) adopt(ctx context.Context) error {
	records, err := m.db.load(m.log)
	if err != nil {
		return err
	}
	known := make([]string, len(records))
	for i, r := range records {
		known[i] = r.task.GetId()
	}
	for pause := adoptMin; ; pause = min(2*pause, adoptMax) {
		found, lost, err := m.adoptOnce(ctx, known)
		if err == nil {
			for _, r := range records {
				id := r.task.GetId()
				m.begin(ctx, r, Input{Begin: true, Found: found[id], Lost: slices.Contains(lost, id)})
			}
			close(m.adopted)
			return nil
		}
		m.log.Warn("can't learn which containers run, trying again", "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *Manager) adoptOnce(ctx context.Context, known []string) (found map[string]*api.ContainerStatus, lost []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, adoptTimeout)
	defer cancel()
	return m.executor.Adopt(ctx, known)
}

// begin starts the runner of a task.
func (m *Manager) begin(ctx context.Context, rec record, first Input) {
	id := rec.task.GetId()
	r := &runner{
		id: id, executor: m.executor, db: m.db, report: m.note, log: m.log,
		inbox: make(chan Input, inboxSize), ended: make(chan struct{}), results: make(chan Input),
		machine: NewMachine(rec.task, rec.status), desired: rec.task.GetDesiredState(), assigned: true,
	}
	m.runners[id] = r
	m.keep(rec.task)
	if s := r.machine.Status(); s.GetState() > api.TaskState_TASK_STATE_ASSIGNED {
		m.note(id, s)
	} else {
		m.mu.Lock()
		m.statuses[id] = s
		m.mu.Unlock()
	}
	m.tasks.Go(func() {
		forgotten := r.run(ctx, first)
		close(r.ended)
		if !forgotten {
			return
		}
		select {
		case m.finished <- id:
		case <-ctx.Done():
		}
	})
}

// note remembers and reports a status.
func (m *Manager) note(id string, s *api.TaskStatus) {
	m.mu.Lock()
	m.statuses[id] = s
	m.mu.Unlock()
	m.report(id, s)
}

// allFinished returns id, and the ids of all others that have finished by now.
func (m *Manager) allFinished(id string) []string {
	ids := []string{id}
	for {
		select {
		case id := <-m.finished:
			ids = append(ids, id)
		default:
			return ids
		}
	}
}

// forget drops tasks that left nothing behind: in one transaction, as what managers assign meanwhile waits for it.
func (m *Manager) forget(ids []string) {
	if err := m.db.forget(ids); err != nil {
		m.log.Error("tasks are not forgotten", "tasks", ids, "error", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		delete(m.runners, id)
		delete(m.statuses, id)
		delete(m.assigned, id)
	}
	close(m.forgotten)
	m.forgotten = make(chan struct{})
}

// Assign takes in what managers want of this node. When complete, tasks are all that the node has; else they replace or add to
// those it has, and the tasks with the removed ids are taken away. It returns when the assignments are in the database, or
// when ctx ends. Run must be running.
func (m *Manager) Assign(ctx context.Context, complete bool, tasks []*api.Task, removed []string) error {
	kept := make([]*api.Task, len(tasks))
	for i, t := range tasks {
		kept[i] = proto.CloneOf(t)
	}
	return m.request(ctx, func(runCtx context.Context) error { return m.assign(runCtx, complete, kept, removed) })
}

func (m *Manager) assign(ctx context.Context, complete bool, tasks []*api.Task, removed []string) error {
	gone := map[string]bool{}
	if complete {
		for id := range m.runners {
			gone[id] = true
		}
	}
	for _, id := range removed {
		gone[id] = true
	}
	var changed []*api.Task
	for _, t := range tasks {
		delete(gone, t.GetId())
		if r, ok := m.runners[t.GetId()]; !ok || !r.assigned || r.desired != t.GetDesiredState() {
			changed = append(changed, t)
		}
	}
	taken := m.taken(gone)
	if err := m.db.saveTasks(slices.Concat(changed, taken)); err != nil {
		return err
	}
	for _, t := range changed {
		m.update(ctx, t)
	}
	for _, t := range taken {
		r := m.runners[t.GetId()]
		r.assigned, r.desired = false, t.GetDesiredState()
		m.keep(t)
		r.send(ctx, Input{Unassigned: true})
	}
	if complete {
		m.reach(ctx)
	}
	return nil
}

// reach takes in that this node starts nothing again by itself any more.
func (m *Manager) reach(ctx context.Context) {
	if !m.reached {
		m.reached = true
		m.tellAll(ctx, Input{Reached: true})
	}
}

// taken returns what is to be kept of tasks that are taken away, those of ids that this node has: that a task is to be gone must
// outlast a restart, after which it may be that no manager is in reach to say so again.
func (m *Manager) taken(ids map[string]bool) []*api.Task {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*api.Task
	for id := range ids {
		if r, ok := m.runners[id]; ok && r.assigned {
			t := proto.CloneOf(m.assigned[id])
			t.DesiredState = api.TaskState_TASK_STATE_REMOVE
			out = append(out, t)
		}
	}
	return out
}

// tellAll hands a fact to all runners.
func (m *Manager) tellAll(ctx context.Context, in Input) {
	for _, id := range slices.Sorted(maps.Keys(m.runners)) {
		m.runners[id].send(ctx, in)
	}
}

// Alone says that no manager is in reach. Tasks that ran, and that ended because this machine was restarted, are then started again,
// if their restart policy would have managers replace them. It does nothing once a complete Assign came. Run must be running.
func (m *Manager) Alone(ctx context.Context) error {
	return m.request(ctx, func(runCtx context.Context) error {
		if !m.reached {
			m.tellAll(runCtx, Input{Alone: true})
		}
		return nil
	})
}

// NotAlone ends what Alone began, as a complete Assign does: tasks that do not run yet are not started again. Run must be running.
func (m *Manager) NotAlone(ctx context.Context) error {
	return m.request(ctx, func(runCtx context.Context) error {
		m.reach(runCtx)
		return nil
	})
}

// update begins a task or gives its runner the new version.
func (m *Manager) update(ctx context.Context, t *api.Task) {
	r, ok := m.runners[t.GetId()]
	if !ok {
		m.begin(ctx, record{task: t}, Input{Begin: true})
		return
	}
	r.assigned, r.desired = true, t.GetDesiredState()
	m.keep(t)
	r.send(ctx, Input{Task: t})
}

// Wake makes tasks that wait for something, such as a secret or a manager, try again now. Run must be running.
func (m *Manager) Wake(ctx context.Context) error {
	return m.request(ctx, func(runCtx context.Context) error {
		m.tellAll(runCtx, Input{Wake: true})
		return nil
	})
}

// keep remembers what managers say of a task.
func (m *Manager) keep(t *api.Task) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.assigned[t.GetId()] = t
}

// Tasks returns each task as managers described it last, by its id. The caller must not modify them.
func (m *Manager) Tasks() map[string]*api.Task {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.assigned)
}

// Statuses returns the last status of each task, by its id. The caller must not modify them.
func (m *Manager) Statuses() map[string]*api.TaskStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.statuses)
}

// Status returns the last status of a task, or nil for one that isn't known. The caller must not modify it.
func (m *Manager) Status(id string) *api.TaskStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.statuses[id]
}

// Adopted returns a channel that is closed once the tasks of the last run are continued.
func (m *Manager) Adopted() <-chan struct{} { return m.adopted }

// Empty blocks until there is no task left, or ctx ends.
func (m *Manager) Empty(ctx context.Context) error {
	for {
		m.mu.Lock()
		left, forgotten := len(m.statuses), m.forgotten
		m.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-forgotten:
		case <-ctx.Done():
			return fmt.Errorf("%d tasks are not ended: %w", left, ctx.Err())
		}
	}
}

// errStopped is returned when a Manager is asked for something after its Run ended.
var errStopped = errors.New("the task manager was stopped")

// request has Run do something.
func (m *Manager) request(ctx context.Context, do func(context.Context) error) error {
	r := request{do: do, done: make(chan error, 1)}
	select {
	case m.requests <- r:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", errStopped, ctx.Err())
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
