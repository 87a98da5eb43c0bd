package dispatcher

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// Limits on what an agent says.
const (
	// maxUpdates bounds one report: ten times what our agent sends.
	maxUpdates = 10_000
	// maxText is the length in bytes of a status's message and error: they are for a line on a screen.
	maxText = 1024
	// maxImages bounds the images in a description; the newest ones count.
	maxImages = 1000
	// maxDescription is the size in bytes of a description, which is in every copy of the node.
	maxDescription = 512 << 10
	// maxStreams bounds the assignment streams of one session: one that is used, and one that broke unnoticed.
	maxStreams = 2
	// maxHolders bounds the answer to LocateImage.
	maxHolders = 32
)

func removed(nodeID string) error {
	return fault.New(fault.PermissionDenied, "node %s is not part of the swarm: it was removed, or never joined", nodeID)
}

// caller returns the node that calls.
func caller(ctx context.Context) (authz.Caller, error) {
	c := authz.FromContext(ctx)
	if c.NodeID == "" {
		return c, fault.New(fault.PermissionDenied, "only nodes of the swarm may call this")
	}
	return c, nil
}

// Session registers the calling node and tells it what changes for it, until the session ends.
func (d *Dispatcher) Session(request *api.SessionRequest, stream grpc.ServerStreamingServer[api.SessionResponse]) error {
	ctx := stream.Context()
	who, err := caller(ctx)
	if err != nil {
		return fault.Status(err)
	}
	s, err := d.register(ctx, who, request.GetDescription())
	if err != nil {
		return fault.Status(err)
	}
	err = d.tell(ctx, s, stream)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions.end(s, errClosed)
	return fault.Status(err)
}

// register begins a session and lets the leader know.
func (d *Dispatcher) register(ctx context.Context, who authz.Caller, description *api.NodeDescription) (*session, error) {
	description, err := checkDescription(description)
	if err != nil {
		return nil, err
	}
	if err := d.known(ctx, who.NodeID); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	s, err := d.sessions.register(now, who.NodeID, object.NewID())
	if err != nil {
		return nil, err
	}
	d.outbox.register(who.NodeID, host(who.Address), description, now)
	d.post()
	return s, nil
}

// host returns an address without its port, which is another one with each connection.
func host(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

// known makes sure that the swarm has the node. One that is not here yet may have joined at another manager just now.
func (d *Dispatcher) known(ctx context.Context, nodeID string) error {
	lookUp := func() error {
		return d.cfg.Store.View(func(tx store.ReadTx) error {
			_, err := store.Get[*api.Node](tx, nodeID)
			return err
		})
	}
	err := lookUp()
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err := d.cfg.Store.Barrier(ctx); err != nil {
		return fault.New(fault.Unavailable, "node %s is unknown here, and this manager cannot catch up: %w", nodeID, err)
	}
	if err := lookUp(); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return removed(nodeID)
}

// checkDescription returns a description within the limits, or nil for nil. The argument is not changed.
func checkDescription(description *api.NodeDescription) (*api.NodeDescription, error) {
	if len(description.GetImages()) > maxImages {
		description = proto.CloneOf(description)
		description.Images = description.Images[:maxImages]
	}
	if size := proto.Size(description); size > maxDescription {
		return nil, fault.New(fault.Invalid, "the node's description has %d bytes, at most %d are allowed: use fewer or shorter labels",
			size, maxDescription)
	}
	return description, nil
}

// tell sends the session's node what it must know, at once and whenever it changes. It returns why the session ended.
func (d *Dispatcher) tell(ctx context.Context, s *session, stream grpc.ServerStreamingServer[api.SessionResponse]) error {
	var last *api.SessionResponse
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		message, err := d.message(s)
		if err != nil {
			return err
		}
		if last == nil || !sameMessage(last, message) {
			if err := stream.Send(message); err != nil {
				return err
			}
			last = message
		}
		silent, ok := d.silentAt(s, message.GetHeartbeatPeriod().AsDuration())
		if !ok {
			return fault.New(fault.Invalid, "session invalid: %w", errSilent)
		}
		timer.Reset(silent)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.ended:
			return fault.New(fault.Invalid, "session invalid: %w", s.cause)
		case <-timer.C:
		case <-s.wake:
		}
	}
}

// silentAt returns how long the session may still be silent, or false if it was for too long.
func (d *Dispatcher) silentAt(s *session, period time.Duration) (time.Duration, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	left := time.Until(s.heard.Add(missedHeartbeats * period))
	return left, left > 0
}

// message says what the store has for the session's node now.
func (d *Dispatcher) message(s *session) (*api.SessionResponse, error) {
	m := &api.SessionResponse{SessionId: s.id, HeartbeatPeriod: durationpb.New(defaultPeriod)}
	for _, member := range d.cfg.Members() {
		m.Managers = append(m.Managers, &api.ManagerPeer{NodeId: member.GetNodeId(), Address: member.GetAddress()})
	}
	slices.SortFunc(m.Managers, func(a, b *api.ManagerPeer) int { return strings.Compare(a.GetNodeId(), b.GetNodeId()) })
	err := d.cfg.Store.View(func(tx store.ReadTx) error {
		n, err := store.Get[*api.Node](tx, s.nodeID)
		if errors.Is(err, store.ErrNotFound) {
			return removed(s.nodeID) // I9
		}
		if err != nil {
			return err
		}
		m.Node = n
		cluster, err := theCluster(tx)
		m.RootCertificate = cluster.GetRootCa().GetCertificate()
		if p := cluster.GetSpec().GetDispatcherHeartbeat(); p.AsDuration() > 0 {
			m.HeartbeatPeriod = p
		}
		return err
	})
	return m, err
}

// sameMessage reports whether b tells nothing that a did not. What the node said itself is no news to it.
func sameMessage(a, b *api.SessionResponse) bool {
	return proto.Equal(told(a), told(b))
}

func told(m *api.SessionResponse) *api.SessionResponse {
	return &api.SessionResponse{
		Managers: m.GetManagers(), RootCertificate: m.GetRootCertificate(), HeartbeatPeriod: m.GetHeartbeatPeriod(),
		Node: &api.Node{Id: m.GetNode().GetId(), Spec: m.GetNode().GetSpec(), Role: m.GetNode().GetRole()},
	}
}

// session returns the caller's session, which the call is a sign of life of.
func (d *Dispatcher) session(ctx context.Context, id string) (*session, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s, err := d.sessions.find(who.NodeID, id)
	if err != nil {
		return nil, err
	}
	s.heard = time.Now()
	d.outbox.hear(s.nodeID, s.heard)
	d.post()
	return s, nil
}

// Heartbeat keeps a session.
func (d *Dispatcher) Heartbeat(ctx context.Context, request *api.HeartbeatRequest) (*api.HeartbeatResponse, error) {
	period, err := d.period()
	if err != nil {
		return nil, fault.Status(err)
	}
	if d.cutOffFor() > period {
		return nil, fault.Status(fault.New(fault.Unavailable, "this manager cannot reach the leader of the swarm, use another one"))
	}
	s, err := d.session(ctx, request.GetSessionId())
	if err != nil {
		return nil, fault.Status(err)
	}
	s.signal() // managers come and go without a change of the store
	return &api.HeartbeatResponse{Period: durationpb.New(period)}, nil
}

// cutOffFor returns for how long a leader that is known could not be reached.
func (d *Dispatcher) cutOffFor() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cutOff.IsZero() {
		return 0
	}
	return time.Since(d.cutOff)
}

// UpdateDescription replaces what the store says of the calling node. It answers once that is committed.
func (d *Dispatcher) UpdateDescription(
	ctx context.Context, request *api.UpdateDescriptionRequest,
) (*api.UpdateDescriptionResponse, error) {
	s, err := d.session(ctx, request.GetSessionId())
	if err != nil {
		return nil, fault.Status(err)
	}
	description, err := checkDescription(request.GetDescription())
	if err != nil {
		return nil, fault.Status(err)
	}
	d.mu.Lock()
	l := d.outbox.describe(s.nodeID, description)
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
	if len(s.GetMessage()) <= maxText && len(s.GetErr()) <= maxText {
		return s
	}
	s = proto.CloneOf(s)
	s.Message, s.Err = clip(s.Message), clip(s.Err)
	return s
}

func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText-len("…")], "") + "…"
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
	return fault.Status(d.assign(ctx, s, stream))
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

func (d *Dispatcher) assign(ctx context.Context, s *session, stream grpc.ServerStreamingServer[api.AssignmentsResponse]) error {
	listener, stop := d.listen(s.nodeID)
	defer stop()
	var have assignment
	sequence := uint64(0)
	for {
		var want assignment
		err := d.cfg.Store.View(func(tx store.ReadTx) (err error) {
			want, err = assigned(tx, s.nodeID)
			return err
		})
		if err != nil {
			return err
		}
		if news := changes(have, want); len(news) > 0 || sequence == 0 {
			m := &api.AssignmentsResponse{Complete: sequence == 0, AppliesTo: sequence, ResultsIn: sequence + 1, Changes: news}
			if err := stream.Send(m); err != nil {
				return err
			}
			sequence++
		}
		have = want
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.ended:
			return fault.New(fault.Invalid, "session invalid: %w", s.cause)
		case <-listener.wake:
		}
	}
}

// LocateImage names ready nodes that have an image, beginning somewhere that depends on the caller, to spread the load.
func (d *Dispatcher) LocateImage(ctx context.Context, request *api.LocateImageRequest) (*api.LocateImageResponse, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, fault.Status(err)
	}
	var holders []*api.ImageHolder
	err = d.cfg.Store.View(func(tx store.ReadTx) error {
		nodes, err := store.List[*api.Node](tx)
		for _, n := range nodes {
			if n.GetId() != who.NodeID && holds(n, request.GetDigest()) {
				holders = append(holders, &api.ImageHolder{NodeId: n.GetId(), PeerAddress: n.GetDescription().GetPeerAddress()})
			}
		}
		return err
	})
	if err != nil {
		return nil, fault.Status(err)
	}
	first, _ := slices.BinarySearchFunc(holders, who.NodeID, func(h *api.ImageHolder, id string) int { return strings.Compare(h.GetNodeId(), id) })
	holders = slices.Concat(holders[first:], holders[:first])
	return &api.LocateImageResponse{Holders: holders[:min(len(holders), maxHolders)]}, nil
}

// holds reports whether a node can hand out an image.
func holds(n *api.Node, digest string) bool {
	if n.GetStatus().GetState() != api.NodeState_NODE_STATE_READY || n.GetDescription().GetPeerAddress() == "" {
		return false
	}
	return slices.ContainsFunc(n.GetDescription().GetImages(), func(i *api.ImageSummary) bool { return i.GetDigest() == digest })
}
