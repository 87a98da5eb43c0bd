package learnbroker_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	moby "github.com/moby/profiles/seccomp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/learnbroker"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// agent is the NodeLearning service of a node: it says one thing at once, another when it is stopped, or fails.
type agent struct {
	api.UnimplementedNodeLearningServer
	says, last *api.RecordNodeCallsResponse
	err        error
	// dies makes it fail after it said something.
	dies bool
	// hangs makes it say nothing.
	hangs bool
	asked *api.RecordStart
	ended bool
}

func (a *agent) RecordNodeCalls(stream grpc.BidiStreamingServer[api.RecordNodeCallsRequest, api.RecordNodeCallsResponse]) error {
	defer func() { a.ended = true }()
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	a.asked = first.GetStart()
	if a.hangs {
		<-stream.Context().Done()
		return stream.Context().Err()
	}
	if a.err != nil {
		return a.err
	}
	if err := stream.Send(a.says); err != nil {
		return err
	}
	if a.dies {
		return status.Error(codes.Internal, "error 17")
	}
	next, err := stream.Recv()
	if err != nil {
		return err
	}
	if next.GetStop() == nil || a.last == nil {
		return nil
	}
	return stream.Send(a.last)
}

// swarm is a store with nodes that record, and a broker that a client can call.
type swarm struct {
	t      *testing.T
	store  *store.Store
	agents map[string]*grpctest.Listener
	client api.LearningClient
	stops  []func()
	log    []string // what the audit log gets
}

func newSwarm(t *testing.T) *swarm {
	t.Helper()
	s := &swarm{t: t, store: storetest.New(t), agents: map[string]*grpctest.Listener{}}
	storetest.Create(t, s.store, &api.Service{
		Id: "service", Spec: &api.ServiceSpec{Annotations: &api.Annotations{Name: "web"}, Task: &api.TaskSpec{Container: &api.ContainerSpec{}}},
	})
	broker, err := learnbroker.New(learnbroker.Config{
		Store: s.store, Dial: func(_, nodeID string, _ ...grpc.DialOption) (*grpc.ClientConn, error) { return dial(s.agents[nodeID]) },
		Compile: func(profile []byte) error { return json.Unmarshal(profile, new(moby.Seccomp)) },
		Began:   func(_ context.Context, id, name, what string) { s.log = append(s.log, id+" "+name+": "+what) },
		Ended:   func(_ context.Context, how string) { s.log = append(s.log, how) },
	})
	if err != nil {
		t.Fatal(err)
	}
	listener := s.serve(func(server *grpc.Server) { api.RegisterLearningServer(server, broker) })
	conn, err := dial(listener)
	if err != nil {
		t.Fatal(err)
	}
	s.stops = append(s.stops, func() { conn.Close() })
	s.client = api.NewLearningClient(conn)
	return s
}

func (s *swarm) stop() {
	for _, stop := range s.stops {
		stop()
	}
}

func (s *swarm) serve(register func(*grpc.Server)) *grpctest.Listener {
	listener := grpctest.Listen()
	server := grpc.NewServer(grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return fault.Status(handler(srv, stream))
	}))
	register(server)
	s.stops = append(s.stops, grpctest.Serve(s.t, server, listener))
	return listener
}

// dial connects to a listener; to none, it never gets there.
func dial(listener *grpctest.Listener) (*grpc.ClientConn, error) {
	return grpctest.NewClient(func(ctx context.Context) (net.Conn, error) {
		if listener == nil {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		return listener.DialContext(ctx)
	})
}

// node adds a node with a task of the service for each id, and an agent unless that is nil.
func (s *swarm) node(id string, state api.NodeState, a *agent, tasks ...string) {
	s.t.Helper()
	storetest.Create(s.t, s.store, &api.Node{
		Id: id, Status: &api.NodeStatus{State: state}, Description: &api.NodeDescription{Hostname: "host-" + id, PeerAddress: id + ":2377"},
	})
	for _, task := range tasks {
		storetest.Create(s.t, s.store, &api.Task{
			Id: task, ServiceId: "service", NodeId: id, DesiredState: api.TaskState_TASK_STATE_RUNNING,
			Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING},
		})
	}
	if a != nil {
		s.agents[id] = s.serve(func(server *grpc.Server) { api.RegisterNodeLearningServer(server, a) })
	}
}

type stream = grpc.BidiStreamingClient[api.LearnSeccompRequest, api.LearnSeccompResponse]

func (s *swarm) learn(ctx context.Context, service string, duration time.Duration) stream {
	s.t.Helper()
	out, err := s.client.LearnSeccomp(ctx)
	if err == nil {
		start := &api.LearnStart{Service: service, Duration: durationpb.New(duration)}
		err = out.Send(&api.LearnSeccompRequest{Step: &api.LearnSeccompRequest_Start{Start: start}})
	}
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// result reads up to the result.
func result(t *testing.T, s stream) (progress []*api.LearnProgress, result *api.LearnResult) {
	t.Helper()
	for {
		r, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if r.GetResult() != nil {
			if _, err := s.Recv(); err != io.EOF {
				t.Errorf("after the result: %v, want the end", err)
			}
			return progress, r.GetResult()
		}
		progress = append(progress, r.GetProgress())
	}
}

// allowed returns the names that a profile allows.
func allowed(t *testing.T, profile []byte) map[string]bool {
	t.Helper()
	var p moby.Seccomp
	if err := json.Unmarshal(profile, &p); err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, rule := range p.Syscalls {
		for _, name := range rule.Names {
			if rule.Action == "SCMP_ACT_ALLOW" {
				out[name] = true
			}
		}
	}
	return out
}

const (
	ready = api.NodeState_NODE_STATE_READY
	down  = api.NodeState_NODE_STATE_DOWN
)

func TestLearnSeccomp_MergesWhatAllNodesSay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		defer s.stop()
		n1 := &agent{
			says: &api.RecordNodeCallsResponse{Tasks: 1, Used: []string{"read"}},
			last: &api.RecordNodeCallsResponse{Tasks: 3, FromStart: 2, Used: []string{"read", "syscall_499"}, Refused: []string{"ptrace"}},
		}
		// P1: a node that lies does not widen the profile.
		n2 := &agent{
			says: &api.RecordNodeCallsResponse{},
			last: &api.RecordNodeCallsResponse{Tasks: 1, Used: []string{"kexec_load", "write", "\x1b["}, Problems: []string{"task t is odd"}},
		}
		s.node("n1", ready, n1, "t1", "t2")
		s.node("n2", ready, n2)
		s.node("n3", ready, &agent{hangs: true}, "t3")
		s.node("n4", ready, nil) // it can't be reached, and has no task
		s.node("n5", down, nil, "t5")
		began := time.Now()
		progress, got := result(t, s.learn(t.Context(), "web", time.Minute))
		if took := time.Since(began); took < time.Minute || took > 2*time.Minute {
			t.Errorf("it took %v, want a minute and what silent nodes are waited for", took)
		}
		if diff := cmp.Diff(&api.RecordStart{ServiceId: "service", TaskIds: []string{"t1", "t2"}}, n1.asked, protocmp.Transform()); diff != "" {
			t.Errorf("n1 was asked (-want +got):\n%s", diff)
		}
		gaps := []*api.LearnGap{
			{NodeId: "n3", NodeHostname: "host-n3", Reason: "the node does not answer"},
			{NodeId: "n5", NodeHostname: "host-n5", Reason: "the node is down"},
		}
		want := []*api.LearnProgress{{Tasks: 1, Used: []string{"read"}, Gaps: gaps}}
		if diff := cmp.Diff(want, progress, protocmp.Transform()); diff != "" {
			t.Errorf("progress (-want +got):\n%s", diff)
		}
		odd := &api.LearnGap{NodeId: "n2", NodeHostname: "host-n2", Reason: "task t is odd"}
		wantResult := &api.LearnProgress{
			Tasks: 4, FromStart: 2, Used: []string{"\x1b[", "kexec_load", "read", "syscall_499", "write"}, Refused: []string{"ptrace"},
			Gaps: []*api.LearnGap{odd, gaps[0], gaps[1]},
		}
		if diff := cmp.Diff(wantResult, got.GetProgress(), protocmp.Transform()); diff != "" {
			t.Errorf("result (-want +got):\n%s", diff)
		}
		names := allowed(t, got.GetProfile())
		for name, want := range map[string]bool{
			"read": true, "write": true, "execve": true, "exit_group": true, "kexec_load": false, "ptrace": false, "openat": false,
		} {
			if names[name] != want {
				t.Errorf("the profile allows %s: %v, want %v", name, names[name], want)
			}
		}
		if len(got.GetWarnings()) != 2 || !strings.Contains(got.GetWarnings()[1], "syscall_499") {
			t.Errorf("warnings: %q, want one of each call without a name", got.GetWarnings())
		}
		log := []string{"service web: learn a seccomp profile for 1m0s", "5 calls of 4 tasks"}
		if diff := cmp.Diff(log, s.log); diff != "" {
			t.Errorf("audit log (-want +got):\n%s", diff)
		}
	})
}

func TestLearnSeccomp_EndsWhenAskedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		defer s.stop()
		calls := &api.RecordNodeCallsResponse{Tasks: 1, Used: []string{"read"}, Compat: true}
		s.node("n1", ready, &agent{says: calls, last: calls}, "t1")
		s.node("n2", ready, &agent{says: &api.RecordNodeCallsResponse{Tasks: 1, Used: []string{"write"}}, dies: true}, "t2")
		began := time.Now()
		stream := s.learn(t.Context(), "serv", time.Hour)
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&api.LearnSeccompRequest{Step: &api.LearnSeccompRequest_Stop{Stop: &api.LearnStop{}}}); err != nil {
			t.Fatal(err)
		}
		_, got := result(t, stream)
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v after the request to stop", took)
		}
		if names := allowed(t, got.GetProfile()); !names["write"] {
			t.Error("what a node said before it failed is lost")
		}
		gap := []*api.LearnGap{{NodeId: "n2", NodeHostname: "host-n2", Reason: "error 17"}}
		if diff := cmp.Diff(gap, got.GetProgress().GetGaps(), protocmp.Transform()); diff != "" {
			t.Errorf("gaps (-want +got):\n%s", diff)
		}
		text := strings.Join(got.GetWarnings(), "\n")
		if !strings.Contains(text, "no task started while it was recorded") || !strings.Contains(text, "32-bit ABI") {
			t.Errorf("warnings: %q", text)
		}
	})
}

// P3: recordings end with the person who asked for them.
func TestLearnSeccomp_EndsWithThePerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		defer s.stop()
		n1 := &agent{says: &api.RecordNodeCallsResponse{Tasks: 1}}
		s.node("n1", ready, n1, "t1")
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := s.learn(ctx, "web", time.Hour).Recv(); err != nil {
			t.Fatal(err)
		}
		cancel()
		synctest.Wait()
		if !n1.ended {
			t.Error("the node records on for nobody")
		}
	})
}

func TestLearnSeccomp_Refuses(t *testing.T) {
	cannot := &agent{err: status.Error(codes.FailedPrecondition, "the kernel has no bpf(2): run another")}
	for _, tc := range []struct {
		name, service string
		duration      time.Duration
		node          *agent
		code          codes.Code
		want          string
	}{
		{"no such service", "nothere", time.Minute, nil, codes.NotFound, "service nothere not found"},
		{"no service", "", time.Minute, nil, codes.InvalidArgument, "is missing"},
		{"too short", "web", time.Millisecond, nil, codes.InvalidArgument, "1ms is not within 1s to 24h0m0s"},
		{"too long", "web", 25 * time.Hour, nil, codes.InvalidArgument, "25h0m0s is not within"},
		{"a kernel that can't", "web", time.Minute, cannot, codes.FailedPrecondition, "node host-n1: the kernel has no bpf(2): run another"},
		{"an older node", "web", time.Minute, &agent{err: status.Error(codes.Unimplemented, "")}, codes.FailedPrecondition, "upgrade it"},
		{
			"no tasks", "web", time.Minute,
			&agent{says: &api.RecordNodeCallsResponse{Problems: []string{"task t1 is odd"}}, last: &api.RecordNodeCallsResponse{}},
			codes.FailedPrecondition, "no task of service web ran where it could be recorded: nothing was learned",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSwarm(t)
				defer s.stop()
				if tc.node != nil {
					s.node("n1", ready, tc.node, "t1")
				}
				stream := s.learn(t.Context(), tc.service, tc.duration)
				var err error
				for err == nil {
					_, err = stream.Recv()
				}
				if status.Code(err) != tc.code || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %v: …%s…", err, tc.code, tc.want)
				}
			})
		})
	}
}
