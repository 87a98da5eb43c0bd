package learn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/seccomp"
	"github.com/skep-io/skep/runtime/systrace"
)

const (
	// maxLearners bounds the recorders: each one costs every system call of the machine some 70 ns, and more in containers.
	maxLearners = 4
	// maxRunning bounds the tasks of a request; fewer can be recorded at once.
	maxRunning = 4096
	// maxProblems bounds what is told of tasks that can't be recorded.
	maxProblems = 16
	// pace is the time between two looks at what was recorded.
	pace = time.Second
)

// Recorder records the calls of containers, as systrace.Recorder does.
type Recorder interface {
	Follow(pid int) error
	Read() (systrace.Calls, error)
	Close() error
}

// Server serves the tasks of this node to managers. Its exported fields are constant once it serves, and never nil.
type Server struct {
	api.UnimplementedNodeLearningServer
	// Open returns a recorder that follows nothing yet.
	Open func() (Recorder, error)
	// Processes returns the first processes of containers by their tasks' ids: of those whose program runs, and of those that wait for it
	// to begin.
	Processes func(ctx context.Context) (running, waiting map[string]int, err error)
	// Answer turns an error into a status, for the method that is named.
	Answer func(method string, err error) error

	mu sync.Mutex
	// learners are those whose streams are open; guarded by mu.
	learners map[*learner]bool
}

type stream = grpc.BidiStreamingServer[api.RecordNodeCallsRequest, api.RecordNodeCallsResponse]

// RecordNodeCalls implements api.NodeLearningServer.
func (s *Server) RecordNodeCalls(stream stream) error {
	return s.Answer("RecordNodeCalls", s.record(stream))
}

func (s *Server) record(stream stream) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	switch {
	case start.GetServiceId() == "":
		return fault.New(fault.Invalid, "the first request does not say which service: this node may be older than the manager")
	case len(start.GetTaskIds()) > maxRunning:
		return fault.New(fault.Invalid, "%d tasks of one node at once: the most is %d", len(start.GetTaskIds()), maxRunning)
	}
	l, err := s.begin(start.GetServiceId())
	if err != nil {
		return err
	}
	defer s.end(l)
	running, waiting, err := s.Processes(stream.Context())
	if err != nil {
		return err
	}
	for _, id := range start.GetTaskIds() { // one without a container has ended, or is only about to begin
		if pid, ok := running[id]; ok {
			l.follow(id, pid, false)
		}
		if pid, ok := waiting[id]; ok {
			l.follow(id, pid, true)
		}
	}
	return l.run(stream)
}

// begin opens a recorder, and has new tasks of the service recorded.
func (s *Server) begin(serviceID string) (*learner, error) {
	l := &learner{serviceID: serviceID, seen: map[string]bool{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.learners) >= maxLearners {
		return nil, fault.New(fault.Exhausted, "%d recordings are under way on this node, which is the most: wait until one ends", maxLearners)
	}
	recorder, err := s.Open()
	if errors.Is(err, systrace.ErrKernel) {
		return nil, fault.Wrap(fault.Precondition, err)
	}
	if err != nil {
		return nil, err
	}
	l.recorder = recorder
	if s.learners == nil {
		s.learners = map[*learner]bool{}
	}
	s.learners[l] = true
	return l, nil
}

// end forgets a recorder (L1).
func (s *Server) end(l *learner) {
	s.mu.Lock()
	delete(s.learners, l)
	s.mu.Unlock()
	// It only detaches, and the end of the process does so too.
	_ = l.recorder.Close()
}

// Created takes in that the first process of a task's container is there, and waits to run its program.
func (s *Server) Created(t *api.Task, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for l := range s.learners {
		if l.serviceID == t.GetServiceId() {
			l.follow(t.GetId(), pid, true)
		}
	}
}

// learner is one recording.
type learner struct {
	// constant
	serviceID string
	recorder  Recorder

	mu sync.Mutex
	// The fields below are guarded by mu.

	// seen has the tasks by their ids, and whether they are recorded from their first call on.
	seen     map[string]bool
	problems []string
	// full counts the tasks that were too many.
	full uint32
}

// follow has a task recorded. One that is recorded already stays as it is.
func (l *learner) follow(id string, pid int, fromStart bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.seen[id]; ok {
		return
	}
	err := l.recorder.Follow(pid)
	switch {
	case err == nil:
		l.seen[id] = fromStart
		return
	case errors.Is(err, os.ErrProcessDone):
		return
	case errors.Is(err, systrace.ErrFull):
		l.full++
		return
	case errors.Is(err, systrace.ErrShared):
		err = errors.New("it shares the pid namespace of the node, whose other processes would count")
	}
	if len(l.problems) < maxProblems {
		l.problems = append(l.problems, fmt.Sprintf("task %s is not recorded: %v", id, err))
	}
}

// run tells what is recorded until a request to stop, or the end of the stream.
func (l *learner) run(stream stream) error {
	stop := make(chan error, 1)
	go func() { // ends with the stream, which ends when this returns
		_, err := stream.Recv()
		stop <- err
	}()
	tick := time.NewTicker(pace)
	defer tick.Stop()
	var last *api.RecordNodeCallsResponse
	for stopped := false; ; {
		now, err := l.state()
		if err != nil {
			return err
		}
		if stopped || last == nil || !proto.Equal(now, last) {
			if err := stream.Send(now); err != nil {
				return err
			}
			last = now
		}
		if stopped {
			return nil
		}
		select {
		case <-tick.C:
		case err := <-stop:
			if err != nil {
				return err // the manager has gone
			}
			stopped = true
		}
	}
}

// state is what was recorded so far.
func (l *learner) state() (*api.RecordNodeCallsResponse, error) {
	calls, err := l.recorder.Read()
	if err != nil {
		return nil, err
	}
	out := &api.RecordNodeCallsResponse{Used: namesOf(calls.Used), Refused: namesOf(calls.Refused)}
	out.Compat = slices.ContainsFunc(calls.Used, func(c systrace.Call) bool { return c.Compat })
	l.mu.Lock()
	defer l.mu.Unlock()
	out.Tasks, out.Problems = uint32(len(l.seen)), slices.Clone(l.problems)
	for _, fromStart := range l.seen {
		if fromStart {
			out.FromStart++
		}
	}
	if l.full > 0 {
		out.Problems = append(out.Problems, fmt.Sprintf("%d more tasks are not recorded: %v", l.full, systrace.ErrFull))
	}
	if calls.OtherUsed {
		out.Problems = append(out.Problems, "there were calls with numbers of no ABI that a profile can name, such as x32")
	}
	if calls.OtherRefused {
		out.Problems = append(out.Problems, "calls were refused with numbers of no ABI that a profile can name, such as x32")
	}
	return out, nil
}

// namesOf gives the names of calls as profiles have them, sorted.
func namesOf(calls []systrace.Call) (names []string) {
	for _, c := range calls {
		name, ok := seccomp.CallName(runtime.GOARCH, c.Compat, c.Number)
		if !ok {
			name = fmt.Sprintf("syscall_%d", c.Number)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
