package agent_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/agent"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/image"
	"github.com/skep-io/skep/internal/grpctest"
)

// manager is a fake dispatcher with a manager's certificate.
type manager struct {
	api.UnimplementedDispatcherServer
	t        *testing.T
	registry *catest.Registry
	identity *ca.Identity
	address  string

	mu sync.Mutex
	// The fields below are guarded by mu.

	// changes are all changes of assignments so far; changed is closed, and replaced, when anything is new.
	changes []*api.AssignmentChange
	changed chan struct{}
	// statuses are the texts of all statuses, by task.
	statuses map[string][]string
	holders  []*api.ImageHolder
	// refused says that no node is let in.
	refused bool
	// described is the last description of each node, by host name.
	described map[string]*api.NodeDescription
}

// serve serves something with an identity on loopback until the test ends, and returns the address.
func serve(t testing.TB, id *ca.Identity, register func(*grpc.Server)) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.Creds(id.ServerCredentials()))
	register(s)
	grpctest.Serve(t, s, l)
	return l.Addr().String()
}

func newManager(t *testing.T) *manager {
	t.Helper()
	if err := setLoopbackUp(); err != nil {
		t.Fatal(err)
	}
	m := &manager{
		t: t, registry: catest.NewRegistry(t), changed: make(chan struct{}), statuses: map[string][]string{},
		described: map[string]*api.NodeDescription{},
	}
	m.identity = ca.NewIdentity(catest.Member(t, m.registry, api.Role_ROLE_MANAGER))
	m.address = serve(t, m.identity, func(s *grpc.Server) { api.RegisterDispatcherServer(s, m) })
	return m
}

// notify wakes those who wait. mu is held.
func (m *manager) notify() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// assign sends changes to the node.
func (m *manager) assign(changes ...*api.AssignmentChange) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		m.changes = append(m.changes, proto.CloneOf(c))
	}
	m.notify()
}

func update(t *api.Task) *api.AssignmentChange {
	return &api.AssignmentChange{Action: api.AssignmentAction_ASSIGNMENT_ACTION_UPDATE, Object: &api.AssignmentChange_Task{Task: t}}
}

func remove(t *api.Task) *api.AssignmentChange {
	return &api.AssignmentChange{Action: api.AssignmentAction_ASSIGNMENT_ACTION_REMOVE, Object: &api.AssignmentChange_Task{Task: t}}
}

func (m *manager) Session(r *api.SessionRequest, stream grpc.ServerStreamingServer[api.SessionResponse]) error {
	m.mu.Lock()
	refused := m.refused
	m.mu.Unlock()
	if refused {
		return status.Error(codes.PermissionDenied, "the node was removed")
	}
	m.describe(r.GetDescription())
	err := stream.Send(&api.SessionResponse{
		SessionId: fmt.Sprint(time.Now().UnixNano()), HeartbeatPeriod: durationpb.New(time.Second),
		Managers: []*api.ManagerPeer{{NodeId: m.identity.NodeID(), Address: m.address}},
	})
	<-stream.Context().Done()
	return err
}

func (m *manager) describe(d *api.NodeDescription) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.described[d.GetHostname()] = d
	m.notify()
}

func (m *manager) Heartbeat(context.Context, *api.HeartbeatRequest) (*api.HeartbeatResponse, error) {
	return &api.HeartbeatResponse{Period: durationpb.New(time.Second)}, nil
}

// Assignments sends everything as one complete message, and then each change.
func (m *manager) Assignments(_ *api.AssignmentsRequest, stream grpc.ServerStreamingServer[api.AssignmentsResponse]) error {
	for sent, complete := 0, true; ; complete = false {
		m.mu.Lock()
		changes, changed := m.changes, m.changed
		m.mu.Unlock()
		if complete || sent < len(changes) {
			err := stream.Send(&api.AssignmentsResponse{
				Complete: complete, AppliesTo: uint64(sent), ResultsIn: uint64(len(changes)), Changes: changes[sent:],
			})
			if err != nil {
				return err
			}
			sent = len(changes)
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

func (m *manager) UpdateTaskStatus(_ context.Context, r *api.UpdateTaskStatusRequest) (*api.UpdateTaskStatusResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, u := range r.GetUpdates() {
		s := u.GetStatus()
		text := fmt.Sprintf("%s %s exit=%d", strings.TrimPrefix(s.GetState().String(), "TASK_STATE_"), s.GetErr(), s.GetContainer().GetExitCode())
		m.statuses[u.GetTaskId()] = append(m.statuses[u.GetTaskId()], text)
	}
	m.notify()
	return &api.UpdateTaskStatusResponse{}, nil
}

func (m *manager) UpdateDescription(_ context.Context, r *api.UpdateDescriptionRequest) (*api.UpdateDescriptionResponse, error) {
	m.describe(r.GetDescription())
	return &api.UpdateDescriptionResponse{}, nil
}

func (m *manager) LocateImage(context.Context, *api.LocateImageRequest) (*api.LocateImageResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &api.LocateImageResponse{Holders: m.holders}, nil
}

// await waits until a condition holds; it is looked at with mu held.
func (m *manager) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	late := time.After(patience)
	for {
		m.mu.Lock()
		ok, changed := holds(), m.changed
		statuses := fmt.Sprint(m.statuses)
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("waiting for %s; statuses: %s", what, statuses)
		}
	}
}

// awaitStatus waits until a status that begins so was told of a task.
func (m *manager) awaitStatus(t *testing.T, id, status string) {
	t.Helper()
	m.await(t, status+" of "+id, func() bool {
		for _, s := range m.statuses[id] {
			if strings.HasPrefix(s, status) {
				return true
			}
		}
		return false
	})
}

// forget drops what was told of tasks.
func (m *manager) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.statuses)
}

// node is a daemon's agent with everything that a daemon gives it.
type node struct {
	*machine
	m        *manager
	identity *ca.Identity
	agent    *agent.Agent
	// peer is where the node serves other nodes.
	peer string
	// end ends the agent, as the end of the daemon does.
	end func()
	// managers are those that the agent begins with, beside those that it knows.
	managers []string
	// patience is the agent's Config.AlonePatience.
	patience time.Duration
}

// newNode makes a node that has joined the swarm of a manager. Nodes share the network namespace of the tests, so only one of them
// may have containers.
func newNode(t *testing.T, m *manager) *node {
	t.Helper()
	base := newMachine(t)
	base.stop() // the agent brings its own executor
	n := &node{
		machine: base, m: m, identity: ca.NewIdentity(catest.Member(t, m.registry, api.Role_ROLE_WORKER)), managers: []string{m.address},
	}
	n.begin()
	t.Cleanup(func() { n.end() })
	return n
}

// begin starts the agent.
func (n *node) begin() {
	n.t.Helper()
	a, err := agent.New(agent.Config{
		Identity: n.identity, Managers: n.managers, AlonePatience: n.patience, DataDir: n.dir, Images: n.images, Runtime: n.client,
		Hostname: filepath.Base(n.parent), Version: "1", PeerAddress: "127.0.0.1:1", BridgeSubnet: subnet(),
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.agent = a
	n.peer = serve(n.t, n.identity, func(s *grpc.Server) { a.Register(s) })
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := a.Run(ctx); err != nil {
			n.t.Error(err)
		}
	})
	n.end = sync.OnceFunc(func() {
		cancel()
		running.Wait()
		if err := a.Close(); err != nil {
			n.t.Error(err)
		}
	})
}

// task returns a task for the node.
func (n *node) task(id string, args ...string) *api.Task {
	t := newTask(id, args...)
	t.NodeId = n.identity.NodeID()
	t.Status = &api.TaskStatus{State: api.TaskState_TASK_STATE_ASSIGNED}
	return t
}

// agentClient returns a client of a node's Agent service, with a manager's identity.
func (m *manager) agentClient(t *testing.T, n *node) api.AgentClient {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+n.peer,
		grpc.WithTransportCredentials(m.identity.ClientCredentials(n.identity.NodeID())))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return api.NewAgentClient(conn)
}

// emptyStore opens an image store without images.
func emptyStore(t *testing.T) *image.Store {
	t.Helper()
	s, err := image.Open(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
