package dispatcher_test

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/dispatcher"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// cluster is some managers on one store, as if replication took no time. One of them leads.
type cluster struct {
	t     *testing.T
	store *store.Store

	mu       sync.Mutex
	managers map[string]*manager
	leader   string
	changed  chan struct{}
	cut      bool   // followers cannot reach the leader
	behind   error  // nil, or why managers do not know whether they are up to date
	hole     string // a manager that never answers the others
	silent   []string
}

type manager struct {
	*dispatcher.Dispatcher
	listener *grpctest.Listener
	stop     func()
	lead     func() // ends Lead, or nil
}

// newCluster must be called inside a bubble. The first manager leads.
func newCluster(t *testing.T, ids ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, store: storetest.New(t), managers: map[string]*manager{}, changed: make(chan struct{})}
	storetest.Create(t, c.store, &api.Cluster{
		Id: "c", Spec: &api.ClusterSpec{DispatcherHeartbeat: durationpb.New(5 * time.Second)}, RootCa: &api.RootCA{Certificate: []byte("root")},
	})
	for _, id := range ids {
		c.start(id)
	}
	c.elect(ids[0])
	return c
}

func (c *cluster) start(id string) {
	d, err := dispatcher.New(dispatcher.Config{
		Store: c.store, Dial: c.dial, CatchUp: c.catchUp,
		Leadership: func() (store.Leadership, <-chan struct{}) { return c.leadership(id) },
		Silent:     c.silentNodes,
		Members:    func() []*api.Member { return []*api.Member{{NodeId: "m1", Address: "m1:2377"}} },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	m := &manager{Dispatcher: d, listener: grpctest.Listen()}
	server := grpc.NewServer(grpc.UnaryInterceptor(identifyUnary), grpc.StreamInterceptor(identifyStream))
	api.RegisterDispatcherServer(server, d)
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() {
		if err := d.Run(ctx); err != nil {
			c.t.Errorf("manager %s: %v", id, err)
		}
	})
	parts.Go(func() { _ = server.Serve(m.listener) }) // ends with Stop
	m.stop = sync.OnceFunc(func() {
		m.endLead()
		cancel()
		server.Stop()
		parts.Wait()
	})
	c.t.Cleanup(m.stop)
	c.managers[id] = m
}

func (m *manager) endLead() {
	if m.lead != nil {
		m.lead()
		m.lead = nil
	}
}

// elect makes a manager lead; empty makes none.
func (c *cluster) elect(id string) {
	c.mu.Lock()
	former := c.managers[c.leader]
	c.leader = id
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	if former != nil {
		former.endLead()
	}
	m := c.managers[id]
	if m == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	var lead sync.WaitGroup
	lead.Go(func() {
		if err := m.Lead(ctx); err != nil {
			c.t.Errorf("manager %s leads: %v", id, err)
		}
	})
	m.lead = func() { cancel(); lead.Wait() }
}

func (c *cluster) leadership(self string) (store.Leadership, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := store.Leadership{LeaderID: c.leader, LeaderAddr: c.leader, Self: c.leader == self}
	return l, c.changed
}

func (c *cluster) setCut(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = cut
}

// setBehind has managers not know whether they are up to date, unless it is nil.
func (c *cluster) setBehind(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.behind = err
}

func (c *cluster) catchUp(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.behind
}

// setSilent says whose machines do not answer others.
func (c *cluster) setSilent(ids ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent = ids
}

func (c *cluster) silentNodes() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.silent
}

func (c *cluster) setHole(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hole = id
}

// dial connects a manager to another.
func (c *cluster) dial(address, _ string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithUnaryInterceptor(func(
			ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption,
		) error {
			c.mu.Lock()
			cut, hole := c.cut, c.hole
			c.mu.Unlock()
			if hole == address {
				<-ctx.Done()
				return status.FromContextError(ctx.Err()).Err()
			}
			if cut {
				return status.Error(codes.Unavailable, "cut off")
			}
			return invoke(ctx, method, request, reply, conn, options...)
		}),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return c.managers[address].listener.DialContext(ctx)
		}))
}

const nodeKey = "test-node"

func identified(ctx context.Context) context.Context {
	md, _ := metadata.FromIncomingContext(ctx)
	node := ""
	if values := md.Get(nodeKey); len(values) > 0 {
		node = values[0]
	}
	return authz.NewContext(ctx, authz.Caller{Kind: api.Caller_CALLER_WORKER, NodeID: node, Address: "10.0.0.7:4711"})
}

func identifyUnary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return handler(identified(ctx), request)
}

type identifiedStream struct {
	grpc.ServerStream
	ctx func() context.Context
}

func (s identifiedStream) Context() context.Context { return s.ctx() }

func identifyStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	ctx := identified(stream.Context())
	return handler(srv, identifiedStream{stream, func() context.Context { return ctx }})
}

// agent is a node as a manager sees it.
type agent struct {
	t      *testing.T
	id     string
	ctx    func() context.Context
	client api.DispatcherClient
	// Session.
	sessionID string
	messages  chan *api.SessionResponse
	ended     chan error
}

// connect makes an agent that has not registered yet.
func (c *cluster) connect(node, managerID string) *agent {
	c.t.Helper()
	conn, err := grpc.NewClient("passthrough:"+managerID, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return c.managers[address].listener.DialContext(ctx)
		}))
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), nodeKey, node))
	c.t.Cleanup(func() { cancel(); conn.Close() })
	return &agent{t: c.t, id: node, ctx: func() context.Context { return ctx }, client: api.NewDispatcherClient(conn)}
}

// register begins a session and uses it at once, as agents do.
func (a *agent) register() error {
	if err := a.open(); err != nil {
		return err
	}
	return a.heartbeat()
}

// open begins a session and reads its stream until it ends.
func (a *agent) open() error {
	stream, err := a.client.Session(a.ctx(), &api.SessionRequest{Description: &api.NodeDescription{Hostname: "host-" + a.id}})
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	a.sessionID = first.GetSessionId()
	a.messages, a.ended = make(chan *api.SessionResponse, 100), make(chan error, 1)
	a.messages <- first
	go func(messages chan *api.SessionResponse, ended chan error) {
		for {
			m, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			messages <- m
		}
	}(a.messages, a.ended)
	return nil
}

func (a *agent) mustRegister() *agent {
	a.t.Helper()
	if err := a.register(); err != nil {
		a.t.Fatalf("agent %s: register: %v", a.id, err)
	}
	return a
}

func (a *agent) heartbeat() error {
	_, err := a.client.Heartbeat(a.ctx(), &api.HeartbeatRequest{SessionId: a.sessionID})
	return err
}

func (a *agent) report(task string, state api.TaskState) error {
	return a.say(task, &api.TaskStatus{State: state})
}

func (a *agent) say(task string, status *api.TaskStatus) error {
	ctx, cancel := context.WithTimeout(a.ctx(), 5*time.Second)
	defer cancel()
	_, err := a.client.UpdateTaskStatus(ctx, &api.UpdateTaskStatusRequest{
		SessionId: a.sessionID, Updates: []*api.TaskStatusUpdate{{TaskId: task, Status: status}},
	})
	return err
}

// assignments collects what the stream says.
func (a *agent) assignments() <-chan *api.AssignmentsResponse {
	a.t.Helper()
	stream, err := a.client.Assignments(a.ctx(), &api.AssignmentsRequest{SessionId: a.sessionID})
	if err != nil {
		a.t.Fatal(err)
	}
	out := make(chan *api.AssignmentsResponse, 100)
	go func() {
		defer close(out)
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			out <- m
		}
	}()
	return out
}

func node(id string) *api.Node {
	return &api.Node{Id: id, Spec: &api.NodeSpec{}, Role: api.Role_ROLE_WORKER, Status: &api.NodeStatus{State: api.NodeState_NODE_STATE_UNKNOWN}}
}

func assignedTask(id, node string, secrets ...string) *api.Task {
	t := &api.Task{
		Id: id, NodeId: node, ServiceId: "s", Slot: 1, DesiredState: api.TaskState_TASK_STATE_RUNNING,
		Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_ASSIGNED}, Spec: &api.TaskSpec{Container: &api.ContainerSpec{}},
	}
	for _, secret := range secrets {
		t.Spec.Container.Secrets = append(t.Spec.Container.Secrets, &api.SecretReference{SecretId: secret})
	}
	return t
}

func change[T store.Object](t *testing.T, s *store.Store, id string, edit func(T)) {
	t.Helper()
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		old, err := store.Get[T](tx, id)
		if err != nil {
			return err
		}
		o := proto.CloneOf(old)
		edit(o)
		return tx.Update(o)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) nodeState(id string) api.NodeState {
	c.t.Helper()
	return storetest.Get[*api.Node](c.t, c.store, id).GetStatus().GetState()
}

func wantCode(t *testing.T, what string, err error, want codes.Code) {
	t.Helper()
	if got := status.Code(err); got != want {
		t.Errorf("%s: got %v (%v), want %v", what, got, err, want)
	}
}
