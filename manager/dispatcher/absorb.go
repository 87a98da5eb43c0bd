package dispatcher

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

// absorb writes what managers heard into the store; the leader does that. What no longer makes sense, such as a status of a
// task that is gone, is left out: the agent learns of it from its assignments.
func (d *Dispatcher) absorb(ctx context.Context, reports []*api.NodeReport) error {
	now := time.Now()
	period, err := d.period()
	if err != nil {
		return err
	}
	steps := d.steps(now, period, reports)
	_, err = d.cfg.Store.Batch(ctx, len(steps), func(tx store.Tx, i int) error {
		return steps[i](&absorber{tx: tx, now: now})
	})
	return err
}

// step is one thing to write. It can be repeated.
type step func(*absorber) error

// steps tells the liveness what was heard, and returns what is to be written.
func (d *Dispatcher) steps(now time.Time, period time.Duration, reports []*api.NodeReport) []step {
	var steps []step
	for _, r := range reports {
		heard := now.Add(-max(r.GetHeardAgo().AsDuration(), 0)) // not in the future
		alive, trusted := false, false
		if r.GetHeardAgo() != nil {
			alive, trusted = d.hear(now, period, r.GetNodeId(), heard)
		}
		if alive || r.GetDescription() != nil || r.GetTls() != nil || r.GetRegisteredAt() != nil {
			steps = append(steps, func(w *absorber) error { return w.node(r, alive, trusted) })
		}
		for _, update := range r.GetStatuses() {
			steps = append(steps, func(w *absorber) error { return w.status(r.GetNodeId(), update) })
		}
	}
	return steps
}

// hear tells the liveness, if this manager leads. Elsewhere, news that are young enough count. trusted says that nobody waits for
// the node's answer.
func (d *Dispatcher) hear(now time.Time, period time.Duration, nodeID string, at time.Time) (alive, trusted bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.alive == nil {
		return now.Sub(at) < missedHeartbeats*period, false
	}
	alive = d.alive.hear(now, period, nodeID, at)
	_, suspected := d.alive.suspected[nodeID]
	return alive, alive && !suspected
}

// absorber writes into one transaction.
type absorber struct {
	tx  store.Tx
	now time.Time
}

// node writes what a report says of its node.
func (w *absorber) node(r *api.NodeReport, alive, trusted bool) error {
	old, err := store.Get[*api.Node](w.tx, r.GetNodeId())
	if errors.Is(err, store.ErrNotFound) {
		return nil // I9
	}
	if err != nil {
		return err
	}
	n := updatedNode(old, r, alive, trusted, w.now)
	if n == nil || old.GetCompromise() != nil {
		return nil
	}
	return w.tx.Update(n)
}

// updatedNode returns the node as it is after a report, or nil when it stays as it is.
func updatedNode(old *api.Node, r *api.NodeReport, alive, trusted bool, now time.Time) *api.Node {
	n := proto.CloneOf(old)
	if n.Status == nil {
		n.Status = &api.NodeStatus{}
	}
	if r.GetDescription() != nil {
		n.Description = r.GetDescription()
	}
	if r.GetTls() != nil || r.GetRegisteredAt() != nil { // a node that registers and does not say so is too old to
		n.Tls = r.GetTls()
	}
	if r.GetAddress() != "" {
		n.Status.Address = r.GetAddress()
	}
	if alive && n.GetStatus().GetState() != api.NodeState_NODE_STATE_READY {
		n.Status.State, n.Status.Message, n.Status.ChangedAt = api.NodeState_NODE_STATE_READY, "", timestamppb.New(now)
	}
	if trusted {
		n.Status.SuspectedAt = nil
	}
	if proto.Equal(n, old) {
		return nil
	}
	return n
}

// status writes one status, if it is the node's to say, and news (I6).
func (w *absorber) status(nodeID string, update *api.TaskStatusUpdate) error {
	old, err := store.Get[*api.Task](w.tx, update.GetTaskId())
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if old.GetNodeId() != nodeID || !taskstate.Accepts(old.GetStatus(), update.GetStatus()) {
		return nil
	}
	t := proto.CloneOf(old)
	t.Status = proto.CloneOf(update.GetStatus())
	if t.Status.Timestamp == nil {
		t.Status.Timestamp = timestamppb.New(w.now)
	}
	w.times(t.Status, old.GetStatus())
	t.Status.Readiness = taskstate.Readiness(old.GetSpec(), old.GetStatus(), update.GetStatus(), w.now)
	return w.tx.Update(t)
}

// times notes when a task began to run and when it ended, by this clock: nodes' clocks differ, and a node may lie.
func (w *absorber) times(status, old *api.TaskStatus) {
	status.RunningAt, status.EndedAt = old.GetRunningAt(), nil
	if status.GetState() == api.TaskState_TASK_STATE_RUNNING && status.GetRunningAt() == nil {
		status.RunningAt = timestamppb.New(w.now)
	}
	if status.GetState() > api.TaskState_TASK_STATE_RUNNING {
		status.EndedAt = timestamppb.New(w.now)
	}
}
