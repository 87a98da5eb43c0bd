package learn_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/agent/learn"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/runtime/systrace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a systrace.Recorder whose calls a test makes.
type recorder struct {
	mu       sync.Mutex // guards all below
	followed []int
	calls    systrace.Calls
	closed   bool
}

func (r *recorder) Follow(pid int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch pid {
	case 1:
		return systrace.ErrShared
	case 2:
		return os.ErrProcessDone
	case 3:
		return systrace.ErrFull
	}
	r.followed = append(r.followed, pid)
	return nil
}

func (r *recorder) Read() (systrace.Calls, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.calls, nil
}

func (r *recorder) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	return nil
}

// use has a process call something, and refuse be refused something.
func (r *recorder) use(numbers ...uint32) { r.note(numbers, nil) }

func (r *recorder) note(used, refused []uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, n := range used {
		r.calls.Used = append(slices.Clone(r.calls.Used), systrace.Call{Number: n})
	}
	for _, n := range refused {
		r.calls.Refused = append(slices.Clone(r.calls.Refused), systrace.Call{Number: n})
	}
}

// node serves a learn.Server with fake recorders.
type node struct {
	server    *learn.Server
	client    api.NodeLearningClient
	recorders []*recorder // in the order in which they were opened
	stop      func()
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{}
	n.server = &learn.Server{
		Open: func() (learn.Recorder, error) {
			n.recorders = append(n.recorders, &recorder{})
			return n.recorders[len(n.recorders)-1], nil
		},
		Processes: func(context.Context) (running, waiting map[string]int, err error) {
			return map[string]int{"runs": 100, "shared": 1, "done": 2, "strange": 101, "more": 3, "most": 3}, map[string]int{"waits": 102}, nil
		},
		Answer: func(_ string, err error) error { return fault.Status(err) },
	}
	listener := grpctest.Listen()
	s := grpc.NewServer()
	api.RegisterNodeLearningServer(s, n.server)
	stop := grpctest.Serve(t, s, listener)
	conn := grpctest.Dial(t, listener)
	n.client = api.NewNodeLearningClient(conn)
	n.stop = func() {
		conn.Close()
		stop()
	}
	return n
}

type stream = grpc.BidiStreamingClient[api.RecordNodeCallsRequest, api.RecordNodeCallsResponse]

func (n *node) start(ctx context.Context, t *testing.T, tasks ...string) stream {
	t.Helper()
	s, err := n.client.RecordNodeCalls(ctx)
	if err == nil {
		start := &api.RecordStart{ServiceId: "service", TaskIds: tasks}
		err = s.Send(&api.RecordNodeCallsRequest{Step: &api.RecordNodeCallsRequest_Start{Start: start}})
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func next(t *testing.T, s stream) *api.RecordNodeCallsResponse {
	t.Helper()
	r, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRecordNodeCalls_TellsWhatTasksOfTheServiceCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		s := n.start(t.Context(), t, "runs", "waits", "shared", "done", "more", "most", "elsewhere")
		problem := "task shared is not recorded: it shares the pid namespace of the node, whose other processes would count"
		full := "2 more tasks are not recorded: too many containers are followed at once"
		want := &api.RecordNodeCallsResponse{Tasks: 2, FromStart: 1, Problems: []string{problem, full}}
		if diff := cmp.Diff(want, next(t, s), protocmp.Transform()); diff != "" {
			t.Errorf("at first (-want +got):\n%s", diff)
		}
		n.server.Created(&api.Task{Id: "runs", ServiceId: "service"}, 100) // as it is found and created at once
		n.server.Created(&api.Task{Id: "new", ServiceId: "service"}, 103)
		n.server.Created(&api.Task{Id: "other", ServiceId: "other"}, 104)
		n.recorders[0].use(unix.SYS_WRITE, unix.SYS_READ)
		want.Tasks, want.FromStart, want.Used = 3, 2, []string{"read", "write"}
		if diff := cmp.Diff(want, next(t, s), protocmp.Transform()); diff != "" {
			t.Errorf("then (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]int{100, 102, 103}, n.recorders[0].followed); diff != "" {
			t.Errorf("processes (-want +got):\n%s", diff)
		}

		// The last answer has what was seen since the last look.
		n.recorders[0].note([]uint32{511}, []uint32{unix.SYS_MOUNT})
		if err := s.Send(&api.RecordNodeCallsRequest{Step: &api.RecordNodeCallsRequest_Stop{Stop: &api.LearnStop{}}}); err != nil {
			t.Fatal(err)
		}
		want.Used, want.Refused = []string{"read", "syscall_511", "write"}, []string{"mount"}
		if diff := cmp.Diff(want, next(t, s), protocmp.Transform()); diff != "" {
			t.Errorf("at last (-want +got):\n%s", diff)
		}
		if r, err := s.Recv(); err != io.EOF {
			t.Errorf("after the last: %v, %v; want the end", r, err)
		}
		synctest.Wait()
		if !n.recorders[0].closed {
			t.Error("the recorder is open after the end")
		}
	})
}

func TestRecordNodeCalls_SaysThatCallsCameByThe32BitABI(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		s := n.start(t.Context(), t)
		next(t, s)
		n.recorders[0].mu.Lock()
		n.recorders[0].calls = systrace.Calls{Used: []systrace.Call{{Number: 11, Compat: true}}, OtherUsed: true}
		n.recorders[0].mu.Unlock()
		r := next(t, s)
		if !r.GetCompat() || !slices.Equal(r.GetUsed(), []string{"execve"}) || len(r.GetProblems()) != 1 {
			t.Errorf("on %s: %v, want execve by the 32-bit ABI, and a problem", runtime.GOARCH, r)
		}
	})
}

// L1: nothing goes on recording for nobody.
func TestRecordNodeCalls_EndsWithTheManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		ctx, cancel := context.WithCancel(t.Context())
		next(t, n.start(ctx, t, "runs"))
		cancel()
		synctest.Wait()
		if !n.recorders[0].closed {
			t.Error("the recorder is open though its manager has gone")
		}
		n.server.Created(&api.Task{Id: "new", ServiceId: "service"}, 103)
		if len(n.recorders[0].followed) != 1 {
			t.Errorf("followed after the end: %v", n.recorders[0].followed)
		}
	})
}

func TestRecordNodeCalls_Refuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		refused := func(s stream, code codes.Code, want string) {
			t.Helper()
			if _, err := s.Recv(); status.Code(err) != code || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %v: …%s…", err, code, want)
			}
		}
		s, err := n.client.RecordNodeCalls(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Send(&api.RecordNodeCallsRequest{}); err != nil {
			t.Fatal(err)
		}
		refused(s, codes.InvalidArgument, "does not say which service")
		const most = 4
		for range most {
			next(t, n.start(t.Context(), t))
		}
		refused(n.start(t.Context(), t), codes.ResourceExhausted, "4 recordings are under way")
	})
}

func TestRecordNodeCalls_SaysWhyTheKernelCanNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		defer n.stop()
		n.server.Open = func() (learn.Recorder, error) { return nil, fmt.Errorf("%w: no BPF: get some", systrace.ErrKernel) }
		s := n.start(t.Context(), t)
		if _, err := s.Recv(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "no BPF: get some") {
			t.Errorf("got %v, want the reason and what to do", err)
		}
	})
}
