package raftnet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/wal"
)

const (
	// probeTimeout is how long a manager that wants to join may take to answer at its address.
	probeTimeout = 5 * time.Second
	// joinTimeout bounds a change of the membership.
	joinTimeout = 20 * time.Second
)

// ServerConfig is what NewServer needs. All fields are required.
type ServerConfig struct {
	// NodeID and ClusterID of this manager.
	NodeID, ClusterID string
	// Caller returns the node id that the caller's certificate proves, and the address that the call came from.
	Caller func(ctx context.Context) (nodeID, address string)
	// Dial connects back to managers that want to join.
	Dial DialFunc
}

// Server answers service Raft.
type Server struct {
	api.UnimplementedRaftServer
	cfg     ServerConfig
	partial partial

	mu    sync.Mutex
	store *store.Store // guarded by mu; nil until Attach
}

// NewServer returns a server that answers only Probe, so that a manager can be checked before it joins.
func NewServer(cfg ServerConfig) *Server { return &Server{cfg: cfg} }

// Attach makes the server answer everything, for a store that is or will be running. With nil it goes back to Probe alone.
func (s *Server) Attach(to *store.Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store = to
	s.partial.drop()
}

func (s *Server) attached() (*store.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store == nil {
		return nil, fault.New(fault.Unavailable, "this manager is starting, or is not part of the swarm any more")
	}
	return s.store, nil
}

// statusOf gives the errors of the store their kinds.
func statusOf(err error) error {
	var notLeader *store.NotLeaderError
	switch {
	case errors.As(err, &notLeader):
		err = fault.NewNotLeader(notLeader.LeaderAddr)
	case errors.Is(err, store.ErrRemoved):
		err = fault.Wrap(fault.PermissionDenied, store.ErrRemoved) // exactly this text, see isRemoved
	case errors.Is(err, store.ErrInvalid):
		err = fault.Wrap(fault.PermissionDenied, err)
	case errors.Is(err, store.ErrQuorum), errors.Is(err, store.ErrOutdated):
		err = fault.Wrap(fault.Precondition, err)
	case errors.Is(err, store.ErrBusy), errors.Is(err, store.ErrStopped):
		err = fault.Wrap(fault.Unavailable, err)
	}
	return fault.Status(err)
}

// Send delivers a stream of messages.
func (s *Server) Send(stream grpc.ClientStreamingServer[api.SendRequest, api.SendResponse]) error {
	caller := s.caller(stream.Context()) // for all of them: a stream ends with the certificate that it began with
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return stream.SendAndClose(&api.SendResponse{})
		}
		if err != nil {
			return err
		}
		m, err := decode(request.GetMessage())
		if err == nil {
			err = s.deliver(stream.Context(), caller, m)
		}
		if err != nil {
			return statusOf(err)
		}
	}
}

func decode(encoded []byte) (*raftpb.Message, error) {
	m := &raftpb.Message{}
	if err := proto.Unmarshal(encoded, m); err != nil {
		return nil, fault.New(fault.Invalid, "this is not a raft message")
	}
	return m, nil
}

func (s *Server) caller(ctx context.Context) string {
	id, _ := s.cfg.Caller(ctx)
	return id
}

func (s *Server) deliver(ctx context.Context, caller string, m *raftpb.Message) error {
	to, err := s.attached()
	if err != nil {
		return err
	}
	return to.Deliver(ctx, caller, m)
}

// SendSnapshot puts a snapshot together and delivers it, for managers of versions that can't resume.
func (s *Server) SendSnapshot(stream grpc.ClientStreamingServer[api.SendSnapshotRequest, api.SendSnapshotResponse]) error {
	m, err := s.receiveSnapshot(stream)
	if err == nil {
		err = s.deliver(stream.Context(), s.caller(stream.Context()), m)
	}
	if err != nil {
		return statusOf(err)
	}
	return stream.SendAndClose(&api.SendSnapshotResponse{})
}

func (s *Server) receiveSnapshot(stream grpc.ClientStreamingServer[api.SendSnapshotRequest, api.SendSnapshotResponse]) (*raftpb.Message, error) {
	if _, err := s.attached(); err != nil { // before a large transfer
		return nil, err
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	m, err := decodeSnapshot(first.GetMessage())
	if err != nil {
		return nil, err
	}
	data := first.GetData()
	for {
		next, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			m.Snapshot.Data = data
			return m, nil
		}
		if err != nil {
			return nil, err
		}
		if len(data)+len(next.GetData()) > wal.MaxSnapshot {
			return nil, tooLarge()
		}
		data = append(data, next.GetData()...)
	}
}

// Join adds the caller to the group, on the leader, once it answers at its address.
func (s *Server) Join(ctx context.Context, request *api.JoinRequest) (*api.JoinResponse, error) {
	to, err := s.attached()
	if err != nil {
		return nil, statusOf(err)
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if leadership, _ := to.Leadership(); !leadership.Self {
		return nil, statusOf(&store.NotLeaderError{LeaderAddr: leadership.LeaderAddr})
	}
	caller, from := s.cfg.Caller(ctx)
	if caller == "" || request.GetNodeId() != "" && request.GetNodeId() != caller {
		return nil, statusOf(fault.New(fault.PermissionDenied, "a manager can only join itself"))
	}
	address, err := reachableAddress(request.GetAddress(), from)
	if err != nil {
		return nil, statusOf(err)
	}
	if err := s.probe(ctx, caller, address); err != nil {
		return nil, statusOf(err)
	}
	joined, err := to.AddMember(ctx, caller, address, request.GetProtocol())
	if err != nil {
		return nil, statusOf(err)
	}
	return joined, nil
}

// UpdateMember notes where the caller is, on the leader, once it answers there.
func (s *Server) UpdateMember(ctx context.Context, request *api.UpdateMemberRequest) (*api.UpdateMemberResponse, error) {
	to, err := s.attached()
	if err != nil {
		return nil, statusOf(err)
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if leadership, _ := to.Leadership(); !leadership.Self {
		return nil, statusOf(&store.NotLeaderError{LeaderAddr: leadership.LeaderAddr})
	}
	caller, from := s.cfg.Caller(ctx)
	if caller == "" || request.GetNodeId() != caller {
		return nil, statusOf(fault.New(fault.PermissionDenied, "a manager can only speak for itself"))
	}
	address, err := reachableAddress(request.GetAddress(), from)
	if err != nil {
		return nil, statusOf(err)
	}
	if moved(to, request.GetRaftId(), address) {
		if err := s.probe(ctx, caller, address); err != nil {
			return nil, statusOf(err)
		}
	}
	if err := to.UpdateMember(ctx, request.GetRaftId(), caller, address, request.GetProtocol()); err != nil {
		return nil, statusOf(err)
	}
	return &api.UpdateMemberResponse{}, nil
}

// moved reports whether a member is known at another address.
func moved(s *store.Store, raftID uint64, address string) bool {
	return slices.ContainsFunc(s.Members(), func(m *api.Member) bool { return m.GetRaftId() == raftID && m.GetAddress() != address })
}

// reachableAddress completes an address without a host by that of the caller.
func reachableAddress(address, from string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" || port == "0" {
		return "", fault.New(fault.Invalid, "the address %q must have the form host:port", address)
	}
	if host != "" {
		return address, nil
	}
	if host, _, err = net.SplitHostPort(from); err != nil {
		return "", fault.New(fault.Invalid, "the address %q has no host, and the call came from none", address)
	}
	return net.JoinHostPort(host, port), nil
}

// probe makes sure that the node answers at the address. Without that, adding it could cost the quorum.
func (s *Server) probe(ctx context.Context, nodeID, address string) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := s.cfg.Dial(nodeID, address, dialOptions()...)
	if err != nil {
		return fmt.Errorf("dial %s: %w", address, err)
	}
	defer conn.Close()
	answer, err := api.NewRaftClient(conn).Probe(ctx, &api.ProbeRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return fault.New(fault.Precondition,
			"the manager can't be reached at its advertised address %s: %v; check --advertise-addr and the firewall", address, fault.FromStatus(err))
	}
	if answer.GetNodeId() != nodeID || answer.GetClusterId() != s.cfg.ClusterID {
		return fault.New(fault.Precondition,
			"another manager answers at the advertised address %s: check --advertise-addr", address)
	}
	return nil
}

// Leave removes the caller from the group, on the leader.
func (s *Server) Leave(ctx context.Context, request *api.LeaveRequest) (*api.LeaveResponse, error) {
	to, err := s.attached()
	if err != nil {
		return nil, statusOf(err)
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	caller, _ := s.cfg.Caller(ctx)
	if caller == "" || request.GetNodeId() != "" && request.GetNodeId() != caller {
		return nil, statusOf(fault.New(fault.PermissionDenied, "a manager can only remove itself"))
	}
	for _, member := range to.Members() {
		if member.GetNodeId() != caller {
			continue
		}
		if err := to.RemoveMember(ctx, member.GetRaftId()); err != nil {
			return nil, statusOf(err)
		}
	}
	return &api.LeaveResponse{}, nil
}

// Probe says who answers here.
func (s *Server) Probe(context.Context, *api.ProbeRequest) (*api.ProbeResponse, error) {
	return &api.ProbeResponse{NodeId: s.cfg.NodeID, ClusterId: s.cfg.ClusterID}, nil
}
