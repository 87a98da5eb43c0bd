package scheduler

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

// maxVerdicts bounds an answer: so many nodes are about 1 MiB.
const maxVerdicts = 4096

// Explainer answers why tasks are placed where they are, on any manager. It looks at a snapshot and remembers nothing.
type Explainer struct {
	// free has one element while nobody asks: an answer costs a look at all tasks of the cluster.
	free chan struct{}
}

// NewExplainer returns an Explainer.
func NewExplainer() *Explainer {
	e := &Explainer{free: make(chan struct{}, 1)}
	e.free <- struct{}{}
	return e
}

// Explain says of each task what nodes would do with it: one that waits, one that runs as if it did not, or one that is not in the
// snapshot at all. It waits for its turn until ctx ends. The tasks are not changed.
func (e *Explainer) Explain(ctx context.Context, tx store.ReadTx, tasks []*api.Task) ([]*api.Placing, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-e.free:
	}
	defer func() { e.free <- struct{}{} }()
	core, err := Snapshot(tx)
	if err != nil {
		return nil, err
	}
	var placings []*api.Placing
	for _, t := range tasks {
		if core.tasks[t.GetId()] == nil {
			placings = append(placings, placingOf(core, t, len(tasks)))
			continue
		}
		core.putTask(t, true)
		placings = append(placings, placingOf(core, t, len(tasks)))
		core.putTask(t, false)
	}
	return placings, nil
}

// Snapshot returns a view of the cluster in a snapshot of the store, with which somebody may see what would be decided if more happened.
func Snapshot(tx store.ReadTx) (*Core, error) {
	changes, err := everything(tx)
	if err != nil {
		return nil, err
	}
	core := NewCore()
	core.absorb(changes)
	return core, nil
}

// placingOf explains one of so many tasks, which the core does not know at the moment.
func placingOf(core *Core, t *api.Task, of int) *api.Placing {
	waiting := proto.CloneOf(t)
	if t.GetBoundNodeId() == "" {
		waiting.VolumeNodeId = taskstate.VolumeNode(t.GetSpec(), []*api.Task{t})
	}
	waiting.NodeId, waiting.GenericResources = "", nil
	verdicts, remedies := core.Explain(time.Now(), waiting)
	p := &api.Placing{
		ServiceId: t.GetServiceId(), ServiceName: t.GetServiceName(), TaskId: t.GetId(), Slot: t.GetSlot(), NodeId: t.GetNodeId(),
	}
	if most := maxVerdicts / of; len(verdicts) > most {
		p.NodesLeftOut, verdicts = uint32(len(verdicts)-most), verdicts[:most]
	}
	for _, v := range verdicts {
		p.Nodes = append(p.Nodes, verdictOf(v))
	}
	for _, r := range remedies {
		p.Changes = append(p.Changes, changeOf(r))
	}
	return p
}

func verdictOf(v Verdict) *api.NodeVerdict {
	out := &api.NodeVerdict{NodeId: v.Node.GetId(), Hostname: v.Node.GetDescription().GetHostname()}
	for _, r := range v.Refusals {
		out.Refusals = append(out.Refusals, &api.NodeRefusal{Filter: r.Filter, Reason: r.Reason, Change: changeOf(r.Remedy)})
	}
	for _, s := range v.Scores {
		out.Scores = append(out.Scores, &api.NodeScore{Name: s.Name, Value: s.Value})
	}
	return out
}

func changeOf(r Remedy) *api.PlacementChange {
	if r.Text == "" {
		return nil
	}
	return &api.PlacementChange{Text: r.Text, Command: r.Command}
}
