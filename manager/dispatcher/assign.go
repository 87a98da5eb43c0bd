package dispatcher

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
)

// maxStreams bounds the assignment streams of one session: one that is used, and one that broke unnoticed.
const maxStreams = 2

// Assignments sends the calling node's tasks and their secrets, and then what changes.
func (d *Dispatcher) Assignments(request *api.AssignmentsRequest, stream grpc.ServerStreamingServer[api.AssignmentsResponse]) error {
	ctx := stream.Context()
	s, err := d.session(ctx, request.GetSessionId())
	if err != nil {
		return fault.Status(err)
	}
	done, err := d.open(s)
	if err != nil {
		return fault.Status(err)
	}
	defer done()
	send := stream.Send
	if request.GetParts() {
		send = inParts(send)
	}
	return fault.Status(d.assign(ctx, s, send))
}

// open counts the streams of a session.
func (d *Dispatcher) open(s *session) (done func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s.streams == maxStreams {
		return nil, fault.New(fault.Exhausted, "the session has %d streams of assignments already", s.streams)
	}
	s.streams++
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		s.streams--
	}, nil
}

// partSize is how many bytes of changes a message has before the next begins. None has more than that and one change, which is an object.
const partSize = 4 << 20

// inParts returns a send that cuts what is larger than a message should be.
func inParts(send func(*api.AssignmentsResponse) error) func(*api.AssignmentsResponse) error {
	return func(m *api.AssignmentsResponse) error {
		changes, begin, size := m.GetChanges(), 0, 0
		for i, change := range changes {
			if size += proto.Size(change); size < partSize || i == len(changes)-1 {
				continue
			}
			part := &api.AssignmentsResponse{
				Complete: m.GetComplete(), AppliesTo: m.GetAppliesTo(), ResultsIn: m.GetResultsIn(), Changes: changes[begin : i+1], More: true,
			}
			if err := send(part); err != nil {
				return err
			}
			begin, size = i+1, 0
		}
		m.Changes = changes[begin:]
		return send(m)
	}
}

func (d *Dispatcher) assign(ctx context.Context, s *session, send func(*api.AssignmentsResponse) error) error {
	if err := d.catchUp(ctx, s); err != nil {
		return err
	}
	listener, stop := d.listen(s.nodeID)
	defer stop()
	var have assignment
	sequence := uint64(0)
	for {
		tasks, all := d.changed(listener)
		var news []*api.AssignmentChange
		err := d.cfg.Store.View(func(tx store.ReadTx) (err error) {
			have, news, err = have.next(tx, s.nodeID, tasks, all)
			return err
		})
		if err != nil {
			return err
		}
		if len(news) > 0 || sequence == 0 {
			m := &api.AssignmentsResponse{Complete: sequence == 0, AppliesTo: sequence, ResultsIn: sequence + 1, Changes: news}
			d.delivering(ctx, have, news)
			if err := send(m); err != nil {
				return err
			}
			sequence++
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.ended:
			return fault.New(fault.Invalid, "session invalid: %w", s.cause)
		case <-listener.wake:
		}
	}
}

// Bounds of one try of catchUp, and the pause before the next.
const (
	catchUpTime  = 10 * time.Second
	catchUpPause = 200 * time.Millisecond
)

// catchUp returns when this manager knows every task that the node may have from another manager, or had from this one before it
// was restarted: what the first message does not name the node stops. It waits for as long as there is no majority of managers.
func (d *Dispatcher) catchUp(ctx context.Context, s *session) error {
	for {
		try, cancel := context.WithTimeout(ctx, catchUpTime)
		err := d.cfg.CatchUp(try)
		cancel()
		if err == nil {
			return nil
		}
		d.log.Debug("assignments wait until the store is up to date", "node", s.nodeID, "error", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.ended:
			return fault.New(fault.Invalid, "session invalid: %w", s.cause)
		case <-time.After(catchUpPause):
		}
	}
}

// delivering says which secrets are about to go to the calling node.
func (d *Dispatcher) delivering(ctx context.Context, want assignment, news []*api.AssignmentChange) {
	for _, change := range news {
		sent := change.GetSecret()
		of, ok := want.values[sent.GetId()].of.(*api.Secret)
		if ok && change.GetAction() == api.AssignmentAction_ASSIGNMENT_ACTION_UPDATE {
			d.cfg.Delivered(authz.FromContext(ctx), &api.Secret{
				Id: of.GetId(), Version: max(1, sent.GetVersion()), Spec: &api.SecretSpec{Annotations: of.GetSpec().GetAnnotations()},
			})
		}
	}
}
