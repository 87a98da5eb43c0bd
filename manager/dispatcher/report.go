package dispatcher

import (
	"context"
	"errors"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

// Limits on reports.
const (
	// maxUpdates bounds one report: ten times what our agent sends.
	maxUpdates = 10_000
	// maxText is the length in bytes of a status's message and error: they are for a line on a screen.
	maxText = 1024
	// maxOutput is that of what the checks of one log wrote together, and maxResults how many of them there are; as our agent bounds them.
	maxOutput  = 4096
	maxResults = 5
	// maxIsolation and maxWord bound what a node says of how a container is isolated: some ten words, of which one names a profile.
	maxIsolation = 32
	maxWord      = 600
	// maxReceived bounds the secrets and configs of a container of which a node says which version it has.
	maxReceived = 256
)

// UpdateDescription replaces what the store says of the calling node. It answers once that is committed.
func (d *Dispatcher) UpdateDescription(
	ctx context.Context, request *api.UpdateDescriptionRequest,
) (*api.UpdateDescriptionResponse, error) {
	s, err := d.session(ctx, request.GetSessionId())
	if err != nil {
		return nil, fault.Status(err)
	}
	description, err := checkDescription(request.GetDescription())
	if err == nil {
		err = checkTLS(request.GetTls())
	}
	if err != nil {
		return nil, fault.Status(err)
	}
	d.mu.Lock()
	l := d.outbox.describe(s.nodeID, description, request.GetTls())
	d.mu.Unlock()
	if err := d.await(ctx, l); err != nil {
		return nil, fault.Status(err)
	}
	return &api.UpdateDescriptionResponse{}, nil
}

// UpdateTaskStatus takes in what became of the calling node's tasks. It answers once that is committed (I2).
func (d *Dispatcher) UpdateTaskStatus(ctx context.Context, request *api.UpdateTaskStatusRequest) (*api.UpdateTaskStatusResponse, error) {
	s, err := d.session(ctx, request.GetSessionId())
	if err != nil {
		return nil, fault.Status(err)
	}
	updates, err := d.checkUpdates(s.nodeID, request.GetUpdates())
	if err != nil {
		return nil, fault.Status(err)
	}
	if len(updates) == 0 {
		return &api.UpdateTaskStatusResponse{}, nil
	}
	d.mu.Lock()
	l, err := d.outbox.report(s.nodeID, updates)
	d.mu.Unlock()
	if err != nil {
		return nil, fault.Status(err)
	}
	if err := d.await(ctx, l); err != nil {
		return nil, fault.Status(err)
	}
	return &api.UpdateTaskStatusResponse{}, nil
}

// checkUpdates refuses what the node may not say, and leaves out what is not news here. What this manager does not know yet is
// left to the leader.
func (d *Dispatcher) checkUpdates(nodeID string, updates []*api.TaskStatusUpdate) ([]*api.TaskStatusUpdate, error) {
	if len(updates) > maxUpdates {
		return nil, fault.New(fault.Invalid, "%d statuses in one report, at most %d are allowed", len(updates), maxUpdates)
	}
	kept := make([]*api.TaskStatusUpdate, 0, len(updates))
	err := d.cfg.Store.View(func(tx store.ReadTx) error {
		for _, update := range updates {
			state := update.GetStatus().GetState()
			if !taskstate.Reportable(state) {
				return fault.New(fault.Invalid, "task %s: state %v is not for a node to report", update.GetTaskId(), state)
			}
			t, err := store.Get[*api.Task](tx, update.GetTaskId())
			if err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
			if err == nil && t.GetNodeId() != "" && t.GetNodeId() != nodeID {
				return fault.New(fault.PermissionDenied, "task %s is not assigned to node %s", update.GetTaskId(), nodeID) // I6
			}
			if err == nil && t.GetNodeId() == nodeID && !taskstate.Accepts(t.GetStatus(), update.GetStatus()) {
				continue // committed before: states here are never ahead of the leader's
			}
			kept = append(kept, &api.TaskStatusUpdate{TaskId: update.GetTaskId(), Status: clipped(update.GetStatus())})
		}
		return nil
	})
	return kept, err
}

// clipped returns a status whose texts are within the limit.
func clipped(s *api.TaskStatus) *api.TaskStatus {
	s = proto.CloneOf(s)
	s.Message, s.Err = fault.Clip(s.Message, maxText), fault.Clip(s.Err, maxText)
	clipLog(s.GetReadiness().GetChecks())
	if c := s.GetContainer(); c != nil {
		c.ContainerId, c.Address, c.HealthOutput = fault.Clip(c.ContainerId, maxText), fault.Clip(c.Address, maxText), fault.Clip(c.HealthOutput, maxText)
		clipLog(c.GetHealthChecks())
		c.Values = c.Values[:min(len(c.Values), maxReceived)]
		c.Values = slices.DeleteFunc(c.Values, func(v *api.ReceivedValue) bool { return len(v.GetId()) > maxWord })
		c.Isolation = c.Isolation[:min(len(c.Isolation), maxIsolation)]
		c.Isolation = slices.DeleteFunc(c.Isolation, func(word string) bool { return len(word) > maxWord })
	}
	return s
}

// clipLog keeps of a log what our agent would have sent: the newest results, and outputs as long as there is room.
func clipLog(log *api.ProbeLog) {
	if log == nil {
		return
	}
	log.Results = log.Results[max(0, len(log.Results)-maxResults):]
	room := maxOutput
	for _, r := range slices.Backward(log.Results) {
		if len(r.GetOutput()) > room {
			r.Output = ""
		}
		room -= len(r.Output)
	}
}

// await waits until the leader committed a letter.
func (d *Dispatcher) await(ctx context.Context, l *letter) error {
	d.post()
	select {
	case err := <-l.done:
		return err
	case <-ctx.Done():
		d.mu.Lock()
		defer d.mu.Unlock()
		l.abandoned = true
		return context.Cause(ctx)
	}
}
