package dispatcher

import (
	"context"
	"crypto/sha256"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/generic"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// Limits on what a node says of itself.
const (
	// maxImages bounds the images in a description; the newest ones count.
	maxImages = 1000
	// maxDescription is the size in bytes of a description, which is in every copy of the node.
	maxDescription = 512 << 10
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
	s, err := d.register(ctx, who, request.GetDescription(), request.GetTls())
	if err != nil {
		return fault.Status(err)
	}
	err = d.tell(ctx, s, request.GetAuditSequence(), stream)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sessions.end(s, errClosed)
	return fault.Status(err)
}

// register begins a session. The leader learns of it when the node uses it: a node that does not take what the manager shows of the audit log
// ends it before, and is not READY.
func (d *Dispatcher) register(
	ctx context.Context, who authz.Caller, description *api.NodeDescription, tls *api.NodeTLS,
) (*session, error) {
	description, err := checkDescription(description)
	if err == nil {
		err = checkTLS(tls)
	}
	if err != nil {
		return nil, err
	}
	if _, err := d.reachable(); err != nil {
		return nil, err
	}
	if err := d.known(ctx, who.NodeID); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	said := introduction{at: time.Now(), address: host(who.Address), description: description, tls: tls}
	return d.sessions.register(who.NodeID, object.NewID(), said)
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
	return description, checkGeneric(description.GetResources().GetGeneric())
}

// checkGeneric refuses more generic resources than a daemon takes from its flags.
func checkGeneric(resources []*api.GenericResource) error {
	if len(resources) > generic.MaxKinds {
		return fault.New(fault.Invalid, "the node has %d kinds of generic resources, at most %d are allowed", len(resources), generic.MaxKinds)
	}
	for _, r := range resources {
		if len(r.GetIds()) > generic.MaxIDs || r.GetCount() < 0 {
			return fault.New(fault.Invalid, "the node has %d ids and a count of %d of one generic resource, at most %d ids are allowed",
				len(r.GetIds()), r.GetCount(), generic.MaxIDs)
		}
	}
	return nil
}

// checkTLS refuses what is not a node's TLS, which is in every copy of the node.
func checkTLS(tls *api.NodeTLS) error {
	ok := len(tls.GetIssuerKeyDigest()) <= sha256.Size && len(tls.GetTrustedRootDigests()) <= ca.MaxCertificates &&
		len(tls.GetMetRotationId()) <= object.IDLength && len(tls.GetWorkloadIssuerKeyDigests()) <= ca.MaxCertificates
	for _, digest := range slices.Concat(tls.GetTrustedRootDigests(), tls.GetWorkloadIssuerKeyDigests()) {
		ok = ok && len(digest) <= sha256.Size
	}
	if !ok {
		return fault.New(fault.Invalid, "tls: at most %d digests of %d bytes and one id are allowed", ca.MaxCertificates, sha256.Size)
	}
	return nil
}

// tell sends the session's node what it must know, at once and whenever it changes. It returns why the session ended.
// sawAudit is how far the node saw the audit log.
func (d *Dispatcher) tell(
	ctx context.Context, s *session, sawAudit uint64, stream grpc.ServerStreamingServer[api.SessionResponse],
) error {
	proof, err := d.prove(ctx, sawAudit)
	if err != nil {
		return err
	}
	var last *api.SessionResponse
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		message, err := d.message(s)
		if err != nil {
			return err
		}
		period := message.GetHeartbeatPeriod().AsDuration()
		if last == nil {
			message.Audit = proof
		}
		if last == nil || !sameMessage(last, message) {
			if err := stream.Send(message); err != nil {
				return err
			}
			if last != nil && period != last.GetHeartbeatPeriod().AsDuration() {
				d.startOver(s) // until now it beat by the former period
			}
			last = message
		}
		silent, ok := d.silentAt(s, period)
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

// startOver counts the silence of a session from now.
func (d *Dispatcher) startOver(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s.heard = time.Now()
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
		cluster, err := store.TheCluster(tx)
		m.Revocations, m.RevocationsVersion = cluster.GetRevocations(), cluster.GetMeta().GetVersion()
		m.GossipKeys = cluster.GetGossipKeys().GetKeys()
		m.RootCertificate = ca.TrustedPEM(cluster.GetRootCa())
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
		Revocations: m.GetRevocations(), GossipKeys: m.GetGossipKeys(),
		Node: &api.Node{
			Id: m.GetNode().GetId(), Spec: m.GetNode().GetSpec(), Role: m.GetNode().GetRole(), Renewal: m.GetNode().GetRenewal(),
			Status: &api.NodeStatus{SuspectedAt: m.GetNode().GetStatus().GetSuspectedAt()},
		},
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
	if s.said != nil {
		d.outbox.register(s.nodeID, *s.said)
		s.said = nil
	}
	d.post()
	return s, nil
}

// Heartbeat keeps a session.
func (d *Dispatcher) Heartbeat(ctx context.Context, request *api.HeartbeatRequest) (*api.HeartbeatResponse, error) {
	period, err := d.reachable()
	if err != nil {
		return nil, fault.Status(err)
	}
	s, err := d.session(ctx, request.GetSessionId())
	if err != nil {
		return nil, fault.Status(err)
	}
	s.signal() // managers come and go without a change of the store
	// The node saw what it names here, or showed that this manager has it: nothing is to be waited for.
	proof, err := d.proof(request.GetAuditSequence())
	if err != nil {
		return nil, fault.Status(err)
	}
	return &api.HeartbeatResponse{Period: durationpb.New(period), Audit: proof}, nil
}

const (
	// patience is how much of a period this manager waits for a leader that it does not reach: what it heard from an agent before was perhaps
	// lost as well, so the agent's next heartbeat, which comes a little early, must already go to another manager.
	patience = 0.75
	// slowPatience is how many periods it waits for one of which Raft says that it is there, and which only takes long: it hears what it is
	// told before it writes, and all agents at once at another manager would not make it faster.
	slowPatience = 2.0
)

// reachable returns the period of heartbeats, or Unavailable when no leader could be reached for most of one, also when none is known: a manager
// that knows of none can't tell whether there is none, or whether it alone was left behind, cut off from the others, or demoted while it was
// away. Agents that ask another one lose nothing.
func (d *Dispatcher) reachable() (time.Duration, error) {
	period, err := d.period()
	if err != nil {
		return 0, err
	}
	leadership, _ := d.cfg.Leadership()
	d.mu.Lock()
	defer d.mu.Unlock()
	periods := patience
	if leadership.LeaderAddr != "" && !d.refused {
		periods = slowPatience
	}
	if !d.unanswered.IsZero() && time.Since(d.unanswered) > time.Duration(periods*float64(period)) {
		return 0, fault.New(fault.Unavailable, "this manager cannot reach the leader of the swarm, use another one")
	}
	return period, nil
}
