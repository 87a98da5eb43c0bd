package task

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// runner is the shell of one Machine.
type runner struct {
	// constant after newRunner
	id       string
	executor Executor
	db       *database
	report   func(id string, s *api.TaskStatus)
	log      *slog.Logger
	inbox    chan Input
	// ended is closed when run has returned.
	ended chan struct{}

	// owned by the Manager's Run: what was last sent. Nothing else of a task ever changes.
	desired  api.TaskState
	assigned bool

	// owned by run
	machine *Machine
	results chan Input
	ops     sync.WaitGroup
	timer   *time.Timer
	// cancel gives up preparing or starting; nil when neither is under way.
	cancel context.CancelFunc
}

// run lives until the task is forgotten or ctx ends. It waits for all operations that it began, and says whether the task is forgotten.
func (r *runner) run(ctx context.Context, begin Input) bool {
	ctx, stop := context.WithCancel(ctx)
	defer r.ops.Wait()
	defer stop()
	r.timer = time.NewTimer(time.Hour)
	r.timer.Stop()
	defer r.timer.Stop()
	in := begin
	for {
		for _, e := range r.machine.Step(time.Now(), in) {
			if e.Forget {
				return true
			}
			r.apply(ctx, e)
		}
		select {
		case in = <-r.inbox:
		case in = <-r.results:
		case <-r.timer.C:
			in = Input{Tick: true}
		case <-ctx.Done():
			return false
		}
	}
}

// send hands a fact to the runner, unless it has ended.
func (r *runner) send(ctx context.Context, in Input) {
	select {
	case r.inbox <- in:
	case <-r.ended:
	case <-ctx.Done():
	}
}

// apply does what the machine asked for.
func (r *runner) apply(ctx context.Context, e Effect) {
	switch {
	case e.Report != nil:
		r.tell(e.Report)
	case !e.Wake.IsZero():
		r.timer.Reset(max(time.Until(e.Wake), 1))
	case e.Cancel:
		if r.cancel != nil {
			r.cancel()
		}
	case e.Do != 0:
		r.begin(ctx, e.Do)
	}
}

// tell passes a status on, and saves it when a restart must know of it.
func (r *runner) tell(s *api.TaskStatus) {
	r.report(r.id, s)
	if s.GetState() < api.TaskState_TASK_STATE_RUNNING {
		return
	}
	if err := r.db.saveStatus(r.id, s); err != nil { // T3
		r.log.Error("a task's status is not saved: if the daemon is restarted now, it may be wrong", "task", r.id, "error", err)
	}
}

// begin starts an operation in a goroutine that run waits for.
func (r *runner) begin(ctx context.Context, op Operation) {
	t, status := r.machine.Task(), r.machine.Status()
	opCtx, cancel := context.WithCancel(ctx)
	if op == OpPrepare || op == OpStart {
		r.cancel = cancel
	}
	r.ops.Go(func() {
		defer cancel()
		in := Input{Done: op}
		in.Container, in.Err = r.execute(opCtx, op, t, status)
		if in.Err != nil && opCtx.Err() == nil {
			r.log.Debug("operation did not succeed", "task", r.id, "operation", op.String(), "error", in.Err)
		}
		r.news(ctx, in)
	})
}

// news hands on what an operation tells while it goes on.
func (r *runner) news(ctx context.Context, in Input) {
	select {
	case r.results <- in:
	case <-ctx.Done():
	}
}

func (r *runner) execute(ctx context.Context, op Operation, t *api.Task, s *api.TaskStatus) (*api.ContainerStatus, error) {
	switch op {
	case OpPrepare:
		return nil, r.executor.Prepare(ctx, t)
	case OpStart:
		return r.executor.Start(ctx, t)
	case OpWatch:
		return r.executor.Wait(ctx, r.id)
	case OpProbe:
		return nil, r.executor.Probe(ctx, t, s.GetContainer().GetHealth(), func(c *api.ContainerStatus) { r.news(ctx, Input{Probed: c}) })
	case OpProbeReady:
		return nil, r.executor.ProbeReady(ctx, t, s.GetReadiness().GetReady(), func(ready *api.Readiness, why string) {
			r.news(ctx, Input{Readiness: ready, Why: why})
		})
	case OpRefresh:
		values, err := r.executor.Refresh(ctx, t)
		return &api.ContainerStatus{Values: values}, err
	case OpStop:
		return nil, r.executor.Stop(ctx, t)
	case OpKill:
		return nil, r.executor.Kill(ctx, r.id)
	case OpRelease:
		return nil, r.executor.Release(ctx, r.id)
	case OpRemove:
		return nil, r.executor.Remove(ctx, r.id)
	default:
		return nil, fault.New(fault.Internal, "unknown operation %s", op)
	}
}
