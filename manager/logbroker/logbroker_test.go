package logbroker_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/logbroker"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

// agent is the Agent service of one node.
type agent struct {
	api.UnimplementedAgentServer
	listener *grpctest.Listener

	mu    sync.Mutex
	tasks map[string]*taskLog // guarded by mu
	asked []*api.ReadTaskLogsRequest
}

// taskLog is what a task wrote, and will write.
type taskLog struct {
	lines []*api.LogLine
	// live, or nil, has what is written during a follow; closing it ends the task.
	live chan *api.LogLine
	// hangs makes the node silent after the lines.
	hangs bool
	// endless, or nil, is sent again and again, and sent counts it.
	endless *api.LogLine
	sent    atomic.Int64
	err     error
}

func (a *agent) ReadTaskLogs(request *api.ReadTaskLogsRequest, stream api.Agent_ReadTaskLogsServer) error {
	a.mu.Lock()
	a.asked = append(a.asked, request)
	log := a.tasks[request.GetTaskIds()[0]]
	a.mu.Unlock()
	if log == nil {
		return status.Error(codes.NotFound, "no such task")
	}
	for _, line := range log.lines {
		if err := stream.Send(&api.ReadTaskLogsResponse{Line: line}); err != nil {
			return err
		}
	}
	for ; log.endless != nil; log.sent.Add(1) {
		if err := stream.Send(&api.ReadTaskLogsResponse{Line: log.endless}); err != nil {
			return err
		}
	}
	if log.hangs {
		<-stream.Context().Done()
	}
	if !request.GetOptions().GetFollow() || log.live == nil {
		return log.err
	}
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case line, ok := <-log.live:
			if !ok {
				return log.err
			}
			if err := stream.Send(&api.ReadTaskLogsResponse{Line: line}); err != nil {
				return err
			}
		}
	}
}

// swarm is a store with nodes that serve logs.
type swarm struct {
	t      testing.TB
	store  *store.Store
	broker *logbroker.Broker
	agents map[string]*agent
}

func newSwarm(t testing.TB) *swarm {
	t.Helper()
	s := &swarm{t: t, store: storetest.New(t), agents: map[string]*agent{}}
	storetest.Create(t, s.store, &api.Service{
		Id: "service", Spec: &api.ServiceSpec{Annotations: &api.Annotations{Name: "web"}},
	})
	var err error
	s.broker, err = logbroker.New(logbroker.Config{Store: s.store, Dial: s.dial})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *swarm) dial(address, nodeID string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	if address != nodeID+":2377" {
		s.t.Errorf("dialled %s as node %s", address, nodeID)
	}
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			agent := s.agents[nodeID]
			if agent == nil { // the network swallows what is sent there
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}
			return agent.listener.DialContext(ctx)
		}))
	return grpc.NewClient("passthrough:///node", options...)
}

// node adds a node, without an agent: it can't be reached.
func (s *swarm) node(id string, state api.NodeState) {
	s.t.Helper()
	storetest.Create(s.t, s.store, &api.Node{
		Id: id, Status: &api.NodeStatus{State: state},
		Description: &api.NodeDescription{Hostname: "host-" + id, PeerAddress: id + ":2377"},
	})
}

// agent adds a ready node that serves logs.
func (s *swarm) agent(id string) *agent {
	s.t.Helper()
	s.node(id, api.NodeState_NODE_STATE_READY)
	a := &agent{listener: grpctest.Listen(), tasks: map[string]*taskLog{}}
	s.agents[id] = a
	server := grpc.NewServer()
	api.RegisterAgentServer(server, a)
	grpctest.Serve(s.t, server, a.listener)
	return a
}

// task adds a running task, with its log if its node has an agent.
func (s *swarm) task(id, node string, slot uint64, log *taskLog) {
	s.t.Helper()
	if a := s.agents[node]; a != nil && log != nil {
		a.mu.Lock()
		a.tasks[id] = log
		a.mu.Unlock()
	}
	storetest.Create(s.t, s.store, &api.Task{
		Id: id, ServiceId: "service", ServiceName: "web", NodeId: node, Slot: slot,
		Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING},
	})
}

func line(second int64, text string) *api.LogLine {
	return &api.LogLine{Time: timestamppb.New(time.Unix(second, 0)), Data: []byte(text)}
}

func lines(from, step int64, n int, text string) []*api.LogLine {
	var list []*api.LogLine
	for i := range int64(n) {
		list = append(list, line(from+i*step, text))
	}
	return list
}

// read reads and returns what came, one string for each line or gap.
func (s *swarm) read(ctx context.Context, target string, options *api.LogOptions) ([]string, error) {
	var got []string
	err := s.broker.ReadLogs(ctx, &api.ReadLogsRequest{Target: target, Options: options}, func(e *api.ReadLogsResponse) error {
		got = append(got, describe(e))
		return nil
	})
	return got, err
}

func describe(e *api.ReadLogsResponse) string {
	if gap := e.GetGap(); gap != nil {
		return fmt.Sprintf("gap %s: %s", gap.GetNodeId(), gap.GetReason())
	}
	l := e.GetLine()
	return fmt.Sprintf("%d %s.%d %s@%s %s", l.GetTime().GetSeconds(), l.GetServiceName(), l.GetSlot(), l.GetTaskId(), l.GetNodeHostname(), l.GetData())
}

func check(t *testing.T, got []string, err error, want ...string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestReadLogs_MergesByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.agent("n1")
		s.agent("n2")
		s.task("t1", "n1", 1, &taskLog{lines: []*api.LogLine{line(1, "a"), line(4, "d"), line(5, "e")}})
		s.task("t2", "n2", 2, &taskLog{lines: []*api.LogLine{line(2, "b"), line(6, "f")}})
		s.task("t3", "n2", 3, &taskLog{lines: []*api.LogLine{line(3, "c")}})
		for _, target := range []string{"web", "service", "serv"} {
			got, err := s.read(t.Context(), target, nil)
			check(t, got, err,
				"1 web.1 t1@host-n1 a", "2 web.2 t2@host-n2 b", "3 web.3 t3@host-n2 c", "4 web.1 t1@host-n1 d", "5 web.1 t1@host-n1 e", "6 web.2 t2@host-n2 f")
		}
		got, err := s.read(t.Context(), "t3", nil)
		check(t, got, err, "3 web.3 t3@host-n2 c")
	})
}

func TestReadLogs_SaysThatNothingIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.agent("n1")
		storetest.Create(t, s.store, &api.Task{
			Id: "t1", ServiceId: "service", ServiceName: "web", NodeId: "n1", Slot: 1, Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING},
			Spec: &api.TaskSpec{LogDriver: &api.LogDriver{Name: "none"}},
		})
		const want = "the tasks of service web keep no lines, because its log driver is none"
		for _, target := range []string{"web", "t1"} {
			_, err := s.read(t.Context(), target, nil)
			if fault.KindOf(err) != fault.Precondition || !strings.Contains(err.Error(), want) {
				t.Errorf("logs of %s: got %v, want %s", target, err, want)
			}
		}
		s.task("t2", "n1", 2, &taskLog{lines: []*api.LogLine{line(1, "a")}})
		got, err := s.read(t.Context(), "web", nil)
		check(t, got, err, "gap : 1 of the tasks have the log driver none, which keeps no lines", "1 web.2 t2@host-n1 a")
	})
}

func TestReadLogs_PassesTheOptionsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		a := s.agent("n1")
		s.task("t1", "n1", 1, &taskLog{})
		options := &api.LogOptions{Tail: 2, Since: timestamppb.New(time.Unix(9, 0))}
		_, err := s.read(t.Context(), "web", options)
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(a.asked[0].GetOptions(), options) {
			t.Errorf("the node was asked for %v", a.asked[0].GetOptions())
		}
		if _, err := s.read(t.Context(), "web", nil); err != nil || a.asked[1].GetOptions().GetTail() != -1 {
			t.Errorf("without options the node was asked for %v, %v, want everything", a.asked[1].GetOptions(), err)
		}
	})
}

func TestReadLogs_LeavesOutWhatIsNotWantedOfOlderNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.agent("n1")
		s.task("t1", "n1", 1, &taskLog{lines: []*api.LogLine{line(1, "error: a\n"), nil, line(2, "b"), line(3, "error: c"), line(4, "error: d")}})
		until := timestamppb.New(time.Unix(3, 0))
		got, err := s.read(t.Context(), "web", &api.LogOptions{Tail: -1, Grep: "^error: .$", Until: until})
		check(t, got, err, "1 web.1 t1@host-n1 error: a\n", "3 web.1 t1@host-n1 error: c")
		for _, bad := range []*api.LogOptions{
			{Grep: "("}, {Grep: strings.Repeat("x", 1025)}, {Until: &timestamppb.Timestamp{Nanos: -1}}, {Since: &timestamppb.Timestamp{Nanos: -1}},
		} {
			if _, err := s.read(t.Context(), "web", bad); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%v: %v", bad, err)
			}
		}
	})
}

func TestReadLogs_DetailsAreTheContainersLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.agent("n1")
		forged := line(1, "a")
		forged.Details = map[string]string{"forged": "by the node"}
		s.task("t1", "n1", 1, &taskLog{lines: []*api.LogLine{forged}})
		err := s.store.Update(t.Context(), "", func(tx store.Tx) error {
			old, err := store.Get[*api.Task](tx, "t1")
			if err != nil {
				return err
			}
			task := proto.CloneOf(old)
			task.Spec = &api.TaskSpec{Container: &api.ContainerSpec{Labels: map[string]string{"part": "app"}}}
			return tx.Update(task)
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			details bool
			want    map[string]string
		}{{true, map[string]string{"part": "app"}}, {false, nil}} {
			err := s.broker.ReadLogs(t.Context(), &api.ReadLogsRequest{Target: "web", Options: &api.LogOptions{Tail: -1, Details: test.details}},
				func(e *api.ReadLogsResponse) error {
					if diff := cmp.Diff(test.want, e.GetLine().GetDetails()); diff != "" {
						t.Errorf("details %v: %s", test.details, diff)
					}
					return nil
				})
			if err != nil {
				t.Error(err)
			}
		}
	})
}

func TestReadLogs_FollowEndsByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.agent("n1")
		log := &taskLog{live: make(chan *api.LogLine)}
		s.task("t1", "n1", 1, log)
		begun := time.Now()
		at := func(d time.Duration, text string) *api.LogLine {
			return &api.LogLine{Time: timestamppb.New(begun.Add(d)), Data: []byte(text)}
		}
		ended := make(chan struct{})
		defer close(ended)
		go func() {
			for i := range 20 { // a line a second
				select {
				case <-time.After(time.Second):
				case <-ended:
					return
				}
				select {
				case log.live <- at(time.Duration(i+1)*time.Second, fmt.Sprint(i+1)):
				case <-ended:
					return
				}
			}
		}()
		var got []string
		err := s.broker.ReadLogs(t.Context(), &api.ReadLogsRequest{
			Target: "web", Options: &api.LogOptions{Follow: true, Tail: -1, Until: timestamppb.New(begun.Add(4 * time.Second))},
		}, func(e *api.ReadLogsResponse) error {
			got = append(got, string(e.GetLine().GetData()))
			return nil
		})
		check(t, got, err, "1", "2", "3", "4")
		if took := time.Since(begun); took > 7*time.Second {
			t.Errorf("ended after %s", took)
		}
	})
}

// A reader that does not take what there is holds up the node, which reads from its disk: nothing piles up in between.
func TestReadLogs_FastWritersAreHeldBackByASlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.agent("n1")
		// For each task there is what the manager takes of it, a line or two, and what its node has on the way.
		const tasks, size, most = 64, 16 << 10, 256 << 10
		var logs []*taskLog
		for i := range tasks {
			log := &taskLog{endless: line(1, strings.Repeat("x", size))}
			logs = append(logs, log)
			s.task(fmt.Sprint("t", i), "n1", uint64(i+1), log)
		}
		const take = 500
		got, enough := int64(0), errors.New("enough")
		err := s.broker.ReadLogs(t.Context(), &api.ReadLogsRequest{Target: "web", Options: &api.LogOptions{Follow: true, Tail: -1}},
			func(*api.ReadLogsResponse) error {
				if got++; got < take {
					return nil
				}
				synctest.Wait() // returns when nobody can go on: the writers wait for this reader
				sent := int64(0)
				for _, log := range logs {
					sent += log.sent.Load()
				}
				if under := (sent - got) * size; under > tasks*most {
					t.Errorf("%d bytes of %d tasks are under way, want %d of each at most", under, tasks, most)
				}
				return enough
			})
		if !errors.Is(err, enough) {
			t.Error(err)
		}
	})
}

// BenchmarkReadLogs reads as fast as it can from a node that never ends, and says how much memory that takes in both together.
func BenchmarkReadLogs(b *testing.B) {
	s := newSwarm(b)
	s.agent("n1")
	const size = 200
	s.task("t1", "n1", 1, &taskLog{endless: line(1, strings.Repeat("x", size))})
	s.task("t2", "n1", 2, &taskLog{endless: line(1, strings.Repeat("x", size))})
	b.SetBytes(size)
	got, enough := 0, errors.New("enough")
	var peak uint64
	err := s.broker.ReadLogs(b.Context(), &api.ReadLogsRequest{Target: "web", Options: &api.LogOptions{Follow: true, Tail: -1}},
		func(*api.ReadLogsResponse) error {
			if got++; got >= b.N {
				return enough
			}
			if got%10000 == 0 {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
			return nil
		})
	if !errors.Is(err, enough) {
		b.Fatal(err)
	}
	b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
}

func TestReadLogs_NamesWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.agent("n1")
		s.agent("n3")
		s.node("n2", api.NodeState_NODE_STATE_READY)
		s.node("n4", api.NodeState_NODE_STATE_DOWN)
		s.task("t1", "n1", 1, &taskLog{lines: []*api.LogLine{line(1, "a")}})
		s.task("t2", "n2", 2, nil) // can't be reached
		s.task("t2b", "n2", 2, nil)
		s.task("t3", "n3", 3, &taskLog{lines: []*api.LogLine{line(2, "b")}, err: status.Error(codes.DataLoss, "disk broken")})
		s.task("t4", "n4", 4, nil) // known to be down
		s.task("t5", "n5", 5, nil) // removed
		s.task("t6", "n1", 6, nil) // forgotten by its node
		start := time.Now()
		got, err := s.read(t.Context(), "web", nil)
		check(t, got, err,
			"gap n4: the node is down", "gap n5: the node was removed from the swarm",
			"gap n2: can't be reached: the node does not answer",
			"1 web.1 t1@host-n1 a", "2 web.3 t3@host-n3 b", "gap n3: disk broken")
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("took %s, want the 5s of a connection that does not come", took)
		}
	})
}

func TestReadLogs_NodeThatFallsSilentIsAGap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.agent("n1")
		s.agent("n2")
		s.task("t1", "n1", 1, &taskLog{lines: []*api.LogLine{line(1, "a")}, hangs: true})
		s.task("t2", "n2", 2, &taskLog{lines: []*api.LogLine{line(2, "b")}})
		got, err := s.read(t.Context(), "web", nil)
		check(t, got, err, "1 web.1 t1@host-n1 a", "gap n1: the node stopped answering", "2 web.2 t2@host-n2 b")
	})
}

func TestReadLogs_UnknownTarget(t *testing.T) {
	s := newSwarm(t)
	s.task("t1", "n1", 1, nil)
	s.task("t2", "n1", 2, nil)
	for target, want := range map[string]string{
		"nope": "no such task or service: nope", "t": "t is ambiguous (2 matches found)", "": "is missing",
		"nope.1": "no such task or service: nope.1", "web.3": "service web has no task in slot 3", "web.x": "no such task or service: web.x",
	} {
		_, err := s.read(t.Context(), target, nil)
		if err == nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) == fault.Internal {
			t.Errorf("target %q: got %v, want …%s…", target, err, want)
		}
	}
}

func TestReadLogs_OfASlot(t *testing.T) {
	s := newSwarm(t)
	s.agent("n1")
	s.task("t1", "n1", 1, &taskLog{lines: []*api.LogLine{line(1, "first")}})
	s.task("t2", "n1", 2, &taskLog{lines: []*api.LogLine{line(2, "other")}})
	s.task("t3", "n1", 1, &taskLog{lines: []*api.LogLine{line(3, "successor")}})
	got, err := s.read(t.Context(), "web.1", nil)
	check(t, got, err, "1 web.1 t1@host-n1 first", "3 web.1 t3@host-n1 successor")
}

// TestReadLogs_LinesMissingInTheEnd: nothing that was asked for follows them.
func TestReadLogs_LinesMissingInTheEnd(t *testing.T) {
	s := newSwarm(t)
	s.agent("n1")
	s.task("t1", "n1", 1, &taskLog{lines: []*api.LogLine{line(1, "a"), {Missed: 7}}})
	var missed []uint64
	err := s.broker.ReadLogs(t.Context(), &api.ReadLogsRequest{Target: "web", Options: &api.LogOptions{Tail: -1, Grep: "a"}},
		func(e *api.ReadLogsResponse) error {
			missed = append(missed, e.GetLine().GetMissed())
			return nil
		})
	if diff := cmp.Diff([]uint64{0, 7}, missed); diff != "" || err != nil {
		t.Errorf("%s, %v", diff, err)
	}
}

func TestReadLogs_FollowsTasksAndNewOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		n1, events := s.agent("n1"), make(chan string)
		first := &taskLog{lines: []*api.LogLine{line(1, "old")}, live: make(chan *api.LogLine)}
		s.task("t1", "n1", 1, first)
		done := make(chan error, 1)
		go func() {
			done <- s.broker.ReadLogs(t.Context(), &api.ReadLogsRequest{Target: "web", Options: &api.LogOptions{Follow: true, Tail: 1}},
				func(e *api.ReadLogsResponse) error {
					events <- describe(e)
					return nil
				})
		}()
		expect := func(want string) {
			t.Helper()
			if got := <-events; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		expect("1 web.1 t1@host-n1 old")
		first.live <- line(2, "live")
		expect("2 web.1 t1@host-n1 live")

		second := &taskLog{lines: []*api.LogLine{line(3, "new")}, live: make(chan *api.LogLine)}
		s.task("t2", "n1", 2, second)
		expect("3 web.2 t2@host-n1 new")
		if got := n1.asked[1].GetOptions(); got.GetTail() != -1 || !got.GetFollow() {
			t.Errorf("the new task was read with %v, want from its beginning", got)
		}
		first.live <- line(4, "both")
		expect("4 web.1 t1@host-n1 both")

		err := s.store.Update(t.Context(), "", func(tx store.Tx) error { return tx.Delete(object.KindService, "service") })
		if err != nil {
			t.Fatal(err)
		}
		close(first.live)
		close(second.live)
		if err := <-done; err != nil {
			t.Errorf("follow ended with %v", err)
		}
	})
}

func TestReadLogs_FollowOfATaskEndsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.agent("n1")
		log := &taskLog{lines: []*api.LogLine{line(1, "a")}, live: make(chan *api.LogLine)}
		s.task("t1", "n1", 1, log)
		close(log.live)
		got, err := s.read(t.Context(), "t1", &api.LogOptions{Follow: true, Tail: -1})
		check(t, got, err, "1 web.1 t1@host-n1 a")
	})
}

func TestReadLogs_FollowNoticesThatANodeIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.agent("n1")
		s.task("t1", "n1", 1, &taskLog{live: make(chan *api.LogLine)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() {
			time.Sleep(time.Second)
			err := s.store.Update(ctx, "", func(tx store.Tx) error {
				old, err := store.Get[*api.Node](tx, "n1")
				if err != nil {
					return err
				}
				node := proto.CloneOf(old)
				node.Status.State = api.NodeState_NODE_STATE_DOWN
				return tx.Update(node)
			})
			if err != nil {
				t.Error(err)
			}
		}()
		got, err := s.read(ctx, "t1", &api.LogOptions{Follow: true})
		check(t, got, err, "gap n1: the node is down")
	})
}

func TestReadLogs_SilentTaskDoesNotHoldUpABusyOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.agent("n1")
		const many = 2000
		s.task("busy", "n1", 1, &taskLog{lines: lines(1, 1, many, "x"), live: make(chan *api.LogLine)})
		s.task("silent", "n1", 2, &taskLog{live: make(chan *api.LogLine)})
		got := 0
		enough := errors.New("enough")
		start := time.Now()
		err := s.broker.ReadLogs(t.Context(), &api.ReadLogsRequest{Target: "web", Options: &api.LogOptions{Follow: true, Tail: -1}},
			func(*api.ReadLogsResponse) error {
				if got++; got == many {
					return enough
				}
				return nil
			})
		if !errors.Is(err, enough) {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 200*time.Millisecond {
			t.Errorf("%d lines took %s beside a silent task", many, took)
		}
	})
}

func TestReadLogs_EndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSwarm(t)
		s.agent("n1")
		s.task("t1", "n1", 1, &taskLog{live: make(chan *api.LogLine)})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.read(ctx, "web", &api.LogOptions{Follow: true}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
