package manager

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/orchestrator/global"
	"github.com/skep-io/skep/manager/orchestrator/job"
	"github.com/skep-io/skep/manager/orchestrator/replicated"
	"github.com/skep-io/skep/manager/orchestrator/update"
	"github.com/skep-io/skep/manager/scheduler"
	"github.com/skep-io/skep/store"
)

// planner has the cores of the leader's loops decide about a service that is not stored.
type planner struct {
	// free has one element while nobody asks: an answer costs a look at all tasks of the cluster, and many at the service's.
	free chan struct{}
}

func newPlanner() *planner {
	p := &planner{free: make(chan struct{}, 1)}
	p.free <- struct{}{}
	return p
}

// Plan implements control.Planner.
func (p *planner) Plan(ctx context.Context, tx store.ReadTx, service *api.Service, because string) ([]*api.PlannedTask, *api.PlannedUpdate, error) {
	select {
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("wait for other plans: %w", context.Cause(ctx))
	case <-p.free:
	}
	defer func() { p.free <- struct{}{} }()
	core, err := scheduler.Snapshot(tx)
	if err != nil {
		return nil, nil, err
	}
	rehearsal := orchestrator.Rehearsal{
		Service: service, Cores: []orchestrator.Core{replicated.Step, global.Step, job.Step, update.Step}, Placer: placer{core}, Because: because,
	}
	out, err := rehearsal.Run(ctx, tx, time.Now())
	if err != nil {
		return nil, nil, err
	}
	way := update.Way(service)
	way.AtLeast, way.Stops = durationpb.New(out.Took), out.Stops
	return out.Tasks, way, nil
}

// placer is a scheduler's core for a rehearsal.
type placer struct{ core *scheduler.Core }

// Place implements orchestrator.Placer.
func (p placer) Place(now time.Time, changed []*api.Task) (placed []orchestrator.Placed) {
	changes := make([]scheduler.Change, 0, len(changed))
	for _, t := range changed {
		changes = append(changes, scheduler.Change{Task: t})
	}
	for _, d := range p.core.Step(now, changes) {
		placed = append(placed, orchestrator.Placed{TaskID: d.Task.GetId(), NodeID: d.Node.GetId(), Refusal: d.Reason})
	}
	return placed
}
