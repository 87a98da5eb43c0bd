package execbroker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/execbroker"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent is the NodeTasks service of the node "n1", whose streams the test serves.
type agent struct {
	api.UnimplementedNodeTasksServer
	sessions chan *session
	control  func(*api.ControlNodeTaskRequest) error
}

// session is a stream at the node. Closing end ends it, with err.
type session struct {
	api.NodeTasks_ConnectNodeTaskServer
	end chan struct{}
	err error
}

func (a *agent) ConnectNodeTask(stream api.NodeTasks_ConnectNodeTaskServer) error {
	s := &session{NodeTasks_ConnectNodeTaskServer: stream, end: make(chan struct{})}
	a.sessions <- s
	<-s.end
	return s.err
}

func (a *agent) ControlNodeTask(_ context.Context, r *api.ControlNodeTaskRequest) (*api.ControlNodeTaskResponse, error) {
	if a.control == nil {
		return a.UnimplementedNodeTasksServer.ControlNodeTask(context.Background(), r)
	}
	return &api.ControlNodeTaskResponse{}, fault.Status(a.control(r))
}

func (a *agent) ListNodeTaskProcesses(_ context.Context, r *api.ListNodeTaskProcessesRequest) (*api.ListNodeTaskProcessesResponse, error) {
	return &api.ListNodeTaskProcessesResponse{Processes: []*api.TaskProcess{{Command: "of " + r.GetTaskId()}}}, nil
}

func (s *session) send(t *testing.T, r *api.ConnectTaskResponse) {
	t.Helper()
	if err := s.Send(&api.ConnectNodeTaskResponse{Output: r}); err != nil {
		t.Fatal(err)
	}
}

// swarm is a broker with a store, one node, and people.
type swarm struct {
	*testing.T
	store  *store.Store
	node   *agent
	server *grpc.Server // the node's
	people api.TasksClient
	caller authz.Caller // who the people are
	// receiving gets a word for each time that the broker waits for a request.
	receiving chan struct{}

	mu    sync.Mutex
	audit []string // guarded by mu
}

func newSwarm(t *testing.T) *swarm {
	t.Helper()
	s := &swarm{
		T: t, store: storetest.New(t), node: &agent{sessions: make(chan *session, 1)},
		caller: authz.Caller{Kind: api.Caller_CALLER_OPERATOR}, receiving: make(chan struct{}, 1024),
	}
	nodes, doors := grpctest.Listen(), grpctest.Listen()
	note := func(format string) func(context.Context, execbroker.Subject) {
		return func(_ context.Context, b execbroker.Subject) {
			s.note(fmt.Sprintf(format, b.TaskName, b.TaskID, b.Summary))
		}
	}
	broker, err := execbroker.New(execbroker.Config{
		Store: s.store, Began: note("began %s %s %s"), About: note("about %s %s %s"),
		Ended: func(_ context.Context, how string) { s.note("ended " + how) },
		Dial: func(address, id string, _ ...grpc.DialOption) (*grpc.ClientConn, error) {
			if address != id+":2377" {
				t.Errorf("dialled %s as node %s", address, id)
			}
			return grpctest.NewClient(func(ctx context.Context) (net.Conn, error) {
				if id != "n1" { // the network swallows what is sent there
					<-ctx.Done()
					return nil, context.Cause(ctx)
				}
				return nodes.DialContext(ctx)
			})
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	door := grpc.NewServer(grpc.StreamInterceptor(s.stream), grpc.UnaryInterceptor(s.unary))
	api.RegisterTasksServer(door, broker)
	s.server = grpc.NewServer()
	api.RegisterNodeTasksServer(s.server, s.node)
	grpctest.Serve(t, door, doors)
	grpctest.Serve(t, s.server, nodes)
	s.people = api.NewTasksClient(grpctest.Dial(t, doors))
	storetest.Create(t, s.store, &api.Service{Id: "service", Spec: &api.ServiceSpec{Annotations: &api.Annotations{Name: "web"}}})
	for id, state := range map[string]api.NodeState{"n1": api.NodeState_NODE_STATE_READY, "n2": api.NodeState_NODE_STATE_DOWN, "n3": api.NodeState_NODE_STATE_READY} {
		storetest.Create(t, s.store, &api.Node{
			Id: id, Status: &api.NodeStatus{State: state}, Description: &api.NodeDescription{Hostname: "host-" + id, PeerAddress: id + ":2377"},
		})
	}
	s.task("abc1", "n1", 1, api.TaskState_TASK_STATE_RUNNING)
	return s
}

func (s *swarm) note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.audit = append(s.audit, text)
}

func (s *swarm) noted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.audit)
}

type calledStream struct {
	grpc.ServerStream
	ctx       context.Context
	receiving chan<- struct{}
}

// RecvMsg tells the test that the broker waits for a request.
func (c calledStream) RecvMsg(m any) error {
	select {
	case c.receiving <- struct{}{}:
	default: // the test does not look
	}
	return c.ServerStream.RecvMsg(m)
}

func (c calledStream) Context() context.Context { return c.ctx }

func (s *swarm) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return fault.Status(handler(srv, calledStream{stream, authz.NewContext(stream.Context(), s.caller), s.receiving}))
}

func (s *swarm) unary(ctx context.Context, r any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	out, err := handler(authz.NewContext(ctx, s.caller), r)
	return out, fault.Status(err)
}

func (s *swarm) task(id, node string, slot uint64, state api.TaskState, grants ...*api.Grant) {
	s.Helper()
	storetest.Create(s.T, s.store, &api.Task{
		Id: id, ServiceId: "service", ServiceName: "web", NodeId: node, Slot: slot, Status: &api.TaskStatus{State: state}, Grants: grants,
		Meta: &api.Meta{CreatedAt: timestamppb.New(time.Unix(int64(slot), 0))},
	})
}

// connect begins a stream with a first request, and gives it with a way to go away.
func (s *swarm) connect(first *api.ConnectTaskRequest) (api.Tasks_ConnectTaskClient, context.CancelFunc) {
	s.Helper()
	ctx, cancel := context.WithCancel(s.Context())
	stream, err := s.people.ConnectTask(ctx)
	if err == nil {
		err = stream.Send(first)
	}
	if err != nil && !errors.Is(err, io.EOF) { // refused already: Recv says why
		s.Fatal(err)
	}
	return stream, cancel
}

func run(task string, args ...string) *api.ConnectTaskRequest {
	return &api.ConnectTaskRequest{Task: task, Input: &api.ConnectTaskRequest_Exec{Exec: &api.ExecStart{
		Args: args, Env: []string{"PASSWORD=hunter2"}, User: "nobody",
	}}}
}

func connected() *api.ConnectTaskResponse {
	return &api.ConnectTaskResponse{Output: &api.ConnectTaskResponse_Connected{Connected: &api.TaskConnected{}}}
}

func disconnected(code int32) *api.ConnectTaskResponse {
	return &api.ConnectTaskResponse{Output: &api.ConnectTaskResponse_Disconnected{Disconnected: &api.TaskDisconnected{ExitCode: code}}}
}

func TestConnect_PassesOnBothWays(t *testing.T) {
	for name, tt := range map[string]struct {
		first *api.ConnectTaskRequest
		audit []string
	}{
		"exec": {run("web.1", "sh", "-c", "x"), []string{"began web.1 abc1 exec as nobody: sh -c x", "ended exit code 7"}},
		"attach": {
			&api.ConnectTaskRequest{Task: "web.1", Input: &api.ConnectTaskRequest_Attach{Attach: &api.AttachStart{Stdin: true}}},
			[]string{"began web.1 abc1 attach", "ended exit code 7"},
		},
		"copy from": {
			&api.ConnectTaskRequest{Task: "ab", Input: &api.ConnectTaskRequest_CopyFrom{CopyFrom: &api.CopyFrom{Path: "/run/secrets"}}},
			[]string{"began web.1 abc1 copy from: /run/secrets", "ended done"},
		},
		"copy to": {
			&api.ConnectTaskRequest{Task: "abc1", Input: &api.ConnectTaskRequest_CopyTo{CopyTo: &api.CopyTo{Path: "/etc"}}},
			[]string{"began web.1 abc1 copy to: /etc", "ended done"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSwarm(t)
			stream, cancel := s.connect(tt.first)
			defer cancel()
			at := <-s.node.sessions
			defer close(at.end)
			first, err := at.Recv()
			if err != nil || first.GetInput().GetTask() != "abc1" {
				t.Fatalf("the node got %v, %v", first, err)
			}
			at.send(t, connected())
			if r, err := stream.Recv(); err != nil || r.GetConnected() == nil {
				t.Fatal(r, err)
			}
			typed := &api.ConnectTaskRequest{Input: &api.ConnectTaskRequest_Data{Data: []byte("hunter3")}}
			if err := stream.Send(typed); err != nil {
				t.Fatal(err)
			}
			if r, err := at.Recv(); err != nil || string(r.GetInput().GetData()) != "hunter3" {
				t.Error(r, err)
			}
			at.send(t, &api.ConnectTaskResponse{Output: &api.ConnectTaskResponse_Stdout{Stdout: []byte("hunter4")}})
			if r, err := stream.Recv(); err != nil || string(r.GetStdout()) != "hunter4" {
				t.Error(r, err)
			}
			if err := stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if _, err := at.Recv(); !errors.Is(err, io.EOF) {
				t.Errorf("the end of input is %v", err)
			}
			at.send(t, disconnected(7))
			if r, err := stream.Recv(); err != nil || r.GetDisconnected().GetExitCode() != 7 {
				t.Error(r, err)
			}
			if diff := cmp.Diff(tt.audit, s.noted()); diff != "" { // B2: no variable, no input
				t.Errorf("audit (-want +got):\n%s", diff)
			}
		})
	}
}

func TestConnect_EndsWhenEitherSideGoesAway(t *testing.T) {
	s := newSwarm(t)
	stream, cancel := s.connect(run("web.1", "a"))
	at := <-s.node.sessions
	at.send(t, connected())
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-at.Context().Done() // or the test never ends
	close(at.end)

	stream, cancel = s.connect(run("web.1", "b"))
	defer cancel()
	at = <-s.node.sessions
	at.err = fault.Status(fault.New(fault.Precondition, "the container is paused"))
	close(at.end)
	if _, err := stream.Recv(); fault.KindOf(fault.FromStatus(err)) != fault.Precondition || !strings.Contains(err.Error(), "is paused") {
		t.Errorf("an error of the node is %v", err)
	}

	stream, cancel = s.connect(run("web.1", "c"))
	defer cancel()
	at = <-s.node.sessions
	at.send(t, connected())
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	go s.server.Stop() // the node goes away
	if _, err := stream.Recv(); fault.KindOf(fault.FromStatus(err)) != fault.Unavailable {
		t.Errorf("the end of the node is %v", err)
	}
	close(at.end)
}

func TestConnect_SaysWhatCantBe(t *testing.T) {
	s := newSwarm(t)
	s.task("abc2", "n2", 2, api.TaskState_TASK_STATE_RUNNING)
	s.task("abd3", "n1", 3, api.TaskState_TASK_STATE_FAILED)
	s.task("xyz4", "gone", 4, api.TaskState_TASK_STATE_RUNNING)
	long := strings.Repeat("x", 5000)
	for _, tt := range []struct {
		first *api.ConnectTaskRequest
		kind  fault.Kind
		text  string
	}{
		{run("", "x"), fault.Invalid, "the name or id of a task is missing"},
		{run("web.9", "x"), fault.NotFound, "no such task: web.9"},
		{run("zzz", "x"), fault.NotFound, "no such task: zzz"},
		{run("abc", "x"), fault.Invalid, "abc is ambiguous (2 tasks"},
		{run("web.2", "x"), fault.Unavailable, "node host-n2 of task web.2 is down"},
		{run("web.3", "x"), fault.Precondition, "task web.3 (abd3) is not running but failed"},
		{run("web.4", "x"), fault.Unavailable, "the node of task web.4 was removed"},
		{run("web.1"), fault.Invalid, "no program is named"},
		{&api.ConnectTaskRequest{Task: "web.1"}, fault.Invalid, "must say what to do"},
		{&api.ConnectTaskRequest{Task: "web.1", Input: &api.ConnectTaskRequest_Signal{Signal: 9}}, fault.Invalid, "must say what to do"},
		{&api.ConnectTaskRequest{Task: "web.1", Input: &api.ConnectTaskRequest_CopyFrom{CopyFrom: &api.CopyFrom{}}}, fault.Invalid, "path: it is empty"},
		{&api.ConnectTaskRequest{Task: "web.1", Input: &api.ConnectTaskRequest_CopyTo{CopyTo: &api.CopyTo{Path: long}}}, fault.Invalid, "longer than 4095"},
		{&api.ConnectTaskRequest{Task: "web.1", Input: &api.ConnectTaskRequest_CopyTo{CopyTo: &api.CopyTo{Path: "a\x00b"}}}, fault.Invalid, "has a NUL"},
	} {
		stream, cancel := s.connect(tt.first)
		_, err := stream.Recv()
		if fault.KindOf(fault.FromStatus(err)) != tt.kind || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%.80v: %v, want %v: %s", tt.first, err, tt.kind, tt.text)
		}
		cancel()
	}
	if got := s.noted(); got != nil {
		t.Errorf("the audit log has beginnings of what never began: %v", got)
	}
}

func TestConnect_DoesNotWaitForANodeThatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.task("abc5", "n3", 5, api.TaskState_TASK_STATE_RUNNING)
		began := time.Now()
		stream, cancel := s.connect(run("web.5", "x"))
		defer cancel()
		_, err := stream.Recv()
		if fault.KindOf(fault.FromStatus(err)) != fault.Unavailable || !strings.Contains(err.Error(), "node host-n3 of task web.5 can't be reached: it does not answer") {
			t.Error(err)
		}
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("after %v, want 5s", took)
		}
	})
}

func TestConnect_LimitsSessions(t *testing.T) {
	s := newSwarm(t)
	const most = 512
	var ends []context.CancelFunc
	for range most {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if _, err := s.people.ConnectTask(ctx); err != nil {
			t.Fatal(err)
		}
		<-s.receiving // then it has begun
		ends = append(ends, cancel)
	}
	refused := func() bool {
		stream, cancel := s.connect(run("none.1"))
		defer cancel()
		_, err := stream.Recv()
		return fault.KindOf(fault.FromStatus(err)) == fault.Exhausted && strings.Contains(err.Error(), "512 sessions")
	}
	if !refused() {
		t.Error("one more session was let in")
	}
	ends[7]()
	for refused() { // until the manager has noticed
		continue
	}
}

func TestTasks_WithGrantsForAdministrators(t *testing.T) {
	s := newSwarm(t)
	s.node.control = func(*api.ControlNodeTaskRequest) error { return nil }
	s.task("grant6", "n1", 6, api.TaskState_TASK_STATE_RUNNING, &api.Grant{Spec: &api.GrantSpec{Annotations: &api.Annotations{Name: "kvm"}}})
	for _, first := range []*api.ConnectTaskRequest{
		run("web.6", "x"),
		{Task: "web.6", Input: &api.ConnectTaskRequest_CopyFrom{CopyFrom: &api.CopyFrom{Path: "/"}}},
		{Task: "web.6", Input: &api.ConnectTaskRequest_CopyTo{CopyTo: &api.CopyTo{Path: "/"}}},
	} {
		s.caller.Kind = api.Caller_CALLER_OPERATOR
		stream, cancel := s.connect(first)
		if _, err := stream.Recv(); fault.KindOf(fault.FromStatus(err)) != fault.PermissionDenied || !strings.Contains(err.Error(), "grant kvm") {
			t.Errorf("an operator: %v", err)
		}
		cancel()
		s.caller.Kind = api.Caller_CALLER_ADMIN
		stream, cancel = s.connect(first)
		at := <-s.node.sessions
		at.send(t, disconnected(0))
		if _, err := stream.Recv(); err != nil {
			t.Errorf("an administrator: %v", err)
		}
		close(at.end)
		cancel()
	}
}

func TestControl(t *testing.T) {
	s := newSwarm(t)
	ctx := t.Context()
	if _, err := s.people.PauseTask(ctx, &api.PauseTaskRequest{Task: "web.1"}); fault.KindOf(fault.FromStatus(err)) != fault.Precondition ||
		!strings.Contains(err.Error(), "older version of Skep") {
		t.Errorf("a node that can't: %v", err)
	}
	var asked []string
	s.node.control = func(r *api.ControlNodeTaskRequest) error {
		asked = append(asked, fmt.Sprintf("%s %T %d", r.GetTaskId(), r.GetAction(), r.GetSignal()))
		return nil
	}
	s.mu.Lock()
	s.audit = nil
	s.mu.Unlock()
	_, err1 := s.people.PauseTask(ctx, &api.PauseTaskRequest{Task: "web.1"})
	_, err2 := s.people.UnpauseTask(ctx, &api.UnpauseTaskRequest{Task: "web.1"})
	killed, err3 := s.people.KillTask(ctx, &api.KillTaskRequest{Task: "web.1", Signal: 15})
	list, err4 := s.people.ListTaskProcesses(ctx, &api.ListTaskProcessesRequest{Task: "web.1"})
	if err := errors.Join(err1, err2, err3, err4); err != nil || killed.GetTaskId() != "abc1" || list.GetProcesses()[0].GetCommand() != "of abc1" {
		t.Error(err, killed, list)
	}
	for _, signal := range []int32{0, -1, 65} {
		if _, err := s.people.KillTask(ctx, &api.KillTaskRequest{Task: "web.1", Signal: signal}); fault.KindOf(fault.FromStatus(err)) != fault.Invalid {
			t.Errorf("signal %d: %v", signal, err)
		}
	}
	if diff := cmp.Diff([]string{
		"abc1 *api.ControlNodeTaskRequest_Pause 0", "abc1 *api.ControlNodeTaskRequest_Unpause 0", "abc1 *api.ControlNodeTaskRequest_Signal 15",
	}, asked); diff != "" {
		t.Errorf("asked of the node (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"about web.1 abc1 paused", "about web.1 abc1 unpaused", "about web.1 abc1 sent SIGTERM"}, s.noted()); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
}
