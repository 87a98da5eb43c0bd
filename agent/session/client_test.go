package session_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/agent/session"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const period = 5 * time.Second

// cluster is a network of fake managers, by address.
type cluster struct {
	t        *testing.T
	mu       sync.Mutex
	managers map[string]*manager
	// dials has the times of all connections tried.
	dials []time.Time
	// events is what the client did and was told, in order, with the time.
	events []string
	begun  time.Time
	// refuse is the error of the next Assign of the handler, or nil.
	refuse error
}

func newCluster(t *testing.T, addresses ...string) *cluster {
	c := &cluster{t: t, managers: map[string]*manager{}, begun: time.Now()}
	for _, a := range addresses {
		c.up(a)
	}
	return c
}

func (c *cluster) up(address string) *manager {
	m := &manager{c: c, address: address, listener: grpctest.Listen(), sessions: make(chan struct{}), beaten: make(chan struct{}, 1), every: period}
	server := grpc.NewServer()
	api.RegisterDispatcherServer(server, m)
	api.RegisterCAServer(server, authority{})
	m.stop = grpctest.Serve(c.t, server, m.listener)
	c.mu.Lock()
	c.managers[address] = m
	c.mu.Unlock()
	return m
}

// authority refuses each task, and knows no request without any, like a manager of another version.
type authority struct{ api.UnimplementedCAServer }

func (a authority) IssueWorkloadCertificates(
	ctx context.Context, r *api.IssueWorkloadCertificatesRequest,
) (*api.IssueWorkloadCertificatesResponse, error) {
	if len(r.GetRequests()) == 0 {
		return a.UnimplementedCAServer.IssueWorkloadCertificates(ctx, r)
	}
	out := &api.IssueWorkloadCertificatesResponse{}
	for _, request := range r.GetRequests() {
		out.Answers = append(out.Answers, &api.WorkloadAnswer{Refusal: "of " + request.GetTaskId()})
	}
	return out, nil
}

func (c *cluster) down(address string) {
	c.mu.Lock()
	m := c.managers[address]
	delete(c.managers, address)
	c.mu.Unlock()
	m.stop()
}

func (c *cluster) close() {
	for address := range c.managers {
		c.down(address)
	}
}

func (c *cluster) dial(address string) (*grpc.ClientConn, error) {
	connect := func(ctx context.Context, _ string) (net.Conn, error) {
		c.mu.Lock()
		c.dials = append(c.dials, time.Now())
		m, ok := c.managers[address]
		c.mu.Unlock()
		switch {
		case address == "blackhole:1":
			<-ctx.Done()
			return nil, ctx.Err()
		case !ok:
			return nil, errors.New("connection refused")
		}
		return m.listener.DialContext(ctx)
	}
	return grpc.NewClient("passthrough:///"+address, grpc.WithContextDialer(connect),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
}

func (c *cluster) note(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, fmt.Sprintf(format, args...))
}

// noted returns what was noted since the last call.
func (c *cluster) noted() []string {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.events
	c.events = nil
	return out
}

func (c *cluster) Registered(r *api.SessionResponse) { c.note("registered %s", r.GetSessionId()) }
func (c *cluster) Disconnected(err error) {
	if errors.As(err, new(*session.RefusedError)) {
		c.note("refused: %v", err)
		return
	}
	c.note("disconnected")
}

func (c *cluster) Assign(_ context.Context, complete bool, changes []*api.AssignmentChange) error {
	c.note("assign complete=%v of %d", complete, len(changes))
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.refuse
	c.refuse = nil
	return err
}

// run starts a client and returns it with a function that ends it.
func (c *cluster) run(addresses ...string) (*session.Client, func()) {
	c.t.Helper()
	client, stop := c.runIn(c.t.TempDir(), addresses...)
	return client, func() {
		stop()
		c.close()
	}
}

// runIn starts a client that keeps what it remembers in a directory, and returns it with a function that ends it.
func (c *cluster) runIn(dir string, addresses ...string) (*session.Client, func()) {
	c.t.Helper()
	client, err := session.New(session.Config{
		Dir: dir, Managers: addresses, Dial: c.dial, Handler: c,
		Describe: func() *api.NodeDescription { return &api.NodeDescription{Hostname: "h"} },
		TLS:      func() *api.NodeTLS { return &api.NodeTLS{IssuerKeyDigest: []byte("k")} },
	})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(c.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := client.Run(ctx); err != nil {
			c.t.Error(err)
		}
	})
	return client, func() {
		cancel()
		running.Wait()
	}
}

// manager is a fake dispatcher.
type manager struct {
	api.UnimplementedDispatcherServer
	c        *cluster
	address  string
	listener *grpctest.Listener
	stop     func()
	// sessions, when closed, ends all sessions.
	sessions chan struct{}
	// beaten has room for one signal: there was a heartbeat.
	beaten chan struct{}

	mu sync.Mutex
	// guarded by mu
	messages []*api.AssignmentsResponse
	peers    []*api.ManagerPeer
	fail     map[string]error
	hang     bool
	slow     time.Duration // to take in statuses
	beats    []time.Time
	every    time.Duration // the period of heartbeats that it asks for
	saw      uint64        // what the last heartbeat named of its audit log
	statuses map[string]string
	log      []string // the hashes of its audit log, or nil
	anchor   int      // how many of them are not kept any more
	recovery int64
}

// proof is what the manager shows to a node that saw its log up to an entry, as the real one does.
func (m *manager) proof(saw uint64) *api.AuditProof {
	if m.log == nil {
		return nil
	}
	p := &api.AuditProof{Oldest: uint64(m.anchor + 1), Head: &api.AuditHead{
		Sequence: uint64(len(m.log)), Hash: []byte(m.log[len(m.log)-1]), RecoveredAt: m.recovery,
	}}
	if saw >= uint64(max(m.anchor, 1)) && saw <= uint64(len(m.log)) {
		p.Hash = []byte(m.log[saw-1])
	}
	return p
}

// failing returns the error that the next call of a method is to return, once.
func (m *manager) failing(method string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.fail[method]
	delete(m.fail, method)
	return err
}

func (m *manager) Session(r *api.SessionRequest, stream grpc.ServerStreamingServer[api.SessionResponse]) error {
	if err := m.failing("session"); err != nil {
		return err
	}
	if r.GetDescription().GetHostname() != "h" {
		return fault.Status(fault.New(fault.Invalid, "no description"))
	}
	m.mu.Lock()
	first := &api.SessionResponse{SessionId: m.address, Managers: m.peers, HeartbeatPeriod: durationpb.New(m.every)}
	first.Audit = m.proof(r.GetAuditSequence())
	m.mu.Unlock()
	if err := stream.Send(first); err != nil {
		return err
	}
	select {
	case <-m.sessions:
		return m.failing("end")
	case <-stream.Context().Done():
		return nil
	}
}

func (m *manager) Heartbeat(ctx context.Context, r *api.HeartbeatRequest) (*api.HeartbeatResponse, error) {
	m.mu.Lock()
	m.beats = append(m.beats, time.Now())
	m.saw = r.GetAuditSequence()
	hang, proof, every := m.hang, m.proof(r.GetAuditSequence()), m.every
	m.mu.Unlock()
	select {
	case m.beaten <- struct{}{}:
	default:
	}
	if r.GetSessionId() != m.address {
		return nil, fault.Status(fault.New(fault.Invalid, "wrong session"))
	}
	if err := m.failing("heartbeat"); err != nil {
		return nil, err
	}
	if hang { // the answer must not be there before the caller has given up
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return &api.HeartbeatResponse{Period: durationpb.New(every), Audit: proof}, nil
}

func (m *manager) Assignments(_ *api.AssignmentsRequest, stream grpc.ServerStreamingServer[api.AssignmentsResponse]) error {
	m.mu.Lock()
	messages := m.messages
	m.mu.Unlock()
	for _, msg := range messages {
		if err := stream.Send(msg); err != nil {
			return err
		}
	}
	<-stream.Context().Done()
	return nil
}

func (m *manager) UpdateTaskStatus(ctx context.Context, r *api.UpdateTaskStatusRequest) (*api.UpdateTaskStatusResponse, error) {
	if err := m.failing("status"); err != nil {
		return nil, err
	}
	m.mu.Lock()
	slow := m.slow
	m.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.statuses == nil {
		m.statuses = map[string]string{}
	}
	for _, u := range r.GetUpdates() {
		m.statuses[u.GetTaskId()] = u.GetStatus().GetMessage()
	}
	return &api.UpdateTaskStatusResponse{}, nil
}

func (m *manager) UpdateDescription(context.Context, *api.UpdateDescriptionRequest) (*api.UpdateDescriptionResponse, error) {
	m.c.note("description")
	return &api.UpdateDescriptionResponse{}, nil
}

func (m *manager) LocateImage(context.Context, *api.LocateImageRequest) (*api.LocateImageResponse, error) {
	return &api.LocateImageResponse{Holders: []*api.ImageHolder{{NodeId: "n2", PeerAddress: "10.0.0.2:2377"}}}, nil
}

// scripted makes a manager send these assignments to each session.
func (m *manager) scripted(messages ...*api.AssignmentsResponse) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = messages
}

// fails makes the next call of a method fail.
func (m *manager) fails(method string) { m.failsAs(method, fault.Unavailable) }

func (m *manager) failsAs(method string, kind fault.Kind) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = map[string]error{method: fault.Status(fault.New(kind, "not now"))}
}

func (m *manager) told(id string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.statuses[id]
}

func want(t *testing.T, what string, got, want []string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// after lets virtual time go by.
func after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestClient_HeartbeatsComeALittleEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a:1")
		m := c.managers["a:1"]
		m.scripted(&api.AssignmentsResponse{Complete: true, ResultsIn: 1}, &api.AssignmentsResponse{AppliesTo: 1, ResultsIn: 2})
		_, stop := c.run("a:1")
		defer stop()
		after(time.Minute)
		want(t, "events", c.noted(), []string{"registered a:1", "assign complete=true of 0", "assign complete=false of 0"})
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.beats) < 12 || len(m.beats) > 14 {
			t.Errorf("%d heartbeats in a minute", len(m.beats))
		}
		for i, beat := range m.beats[1:] {
			if d := beat.Sub(m.beats[i]); d > period || d < period*9/10 {
				t.Errorf("heartbeat %d after %s", i+1, d)
			}
		}
	})
}

func TestClient_FailsOverWithinASecond(t *testing.T) {
	tests := map[string]func(*cluster, string){
		"manager killed":        func(c *cluster, address string) { c.down(address) },
		"manager ends sessions": func(c *cluster, address string) { close(c.managers[address].sessions) },
	}
	for name, lose := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, "a:1", "b:1")
				_, stop := c.run("a:1", "b:1")
				defer stop()
				after(time.Minute)
				first := c.noted()[0]
				lost, other := "a:1", "b:1"
				if first == "registered b:1" {
					lost, other = other, lost
				}
				lose(c, lost)
				after(time.Second)
				want(t, "events", c.noted(), []string{"disconnected", "registered " + other})
			})
		})
	}
}

func TestClient_PassesOverAManagerThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a:1")
		client, stop := c.run("blackhole:1", "a:1")
		defer stop()
		after(1100 * time.Millisecond)
		events := c.noted()
		if len(events) == 0 || events[len(events)-1] != "registered a:1" {
			t.Errorf("after a second: %q", events)
		}
		if got := client.Managers(); len(got) != 2 {
			t.Errorf("managers %q", got)
		}
	})
}

func TestClient_GivesUpAManagerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a:1", "b:1")
		_, stop := c.run("a:1", "b:1")
		defer stop()
		after(time.Minute)
		hanging := c.managers[c.noted()[0][len("registered "):]]
		hanging.mu.Lock()
		hanging.hang = true
		hanging.mu.Unlock()
		after(period + 3*time.Second)
		if events := c.noted(); len(events) != 2 || events[1] == "registered "+hanging.address {
			t.Errorf("events %q", events)
		}
	})
}

func TestClient_StartsOverAfterAGapOrARefusedAssignment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a:1")
		m := c.managers["a:1"]
		m.scripted(&api.AssignmentsResponse{Complete: true, ResultsIn: 1}, &api.AssignmentsResponse{AppliesTo: 7, ResultsIn: 8})
		_, stop := c.run("a:1")
		defer stop()
		after(50 * time.Millisecond)
		want(t, "events", c.noted(), []string{"registered a:1", "assign complete=true of 0", "disconnected"})
		m.scripted(&api.AssignmentsResponse{Complete: true, ResultsIn: 9})
		c.mu.Lock()
		c.refuse = errors.New("disk full")
		c.mu.Unlock()
		after(90 * time.Millisecond) // the second try comes 50 to 100 ms after the first, and the third 100 to 200 ms after that
		want(t, "events", c.noted(), []string{"registered a:1", "assign complete=true of 0", "disconnected"})
		after(time.Second)
		want(t, "events", c.noted(), []string{"registered a:1", "assign complete=true of 0"})
	})
}

// That a node is not part of the swarm is what the answer to its registration says, and the end of that; a call that is denied, and a certificate that
// isn't valid, say something else.
func TestClient_TellsARefusalFromOtherErrors(t *testing.T) {
	tests := map[string]struct {
		method string
		kind   fault.Kind
		want   []string
	}{
		"removed before":  {"session", fault.PermissionDenied, []string{"refused: register with manager a:1: not now"}},
		"removed":         {"end", fault.PermissionDenied, []string{"registered a:1", "refused: session with manager a:1: not now"}},
		"not valid":       {"session", fault.Unauthenticated, []string{"disconnected"}},
		"no more valid":   {"end", fault.Unauthenticated, []string{"registered a:1", "disconnected"}},
		"another's task":  {"status", fault.PermissionDenied, []string{"registered a:1", "disconnected"}},
		"another manager": {"session", fault.Unavailable, []string{"disconnected"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t, "a:1")
				m := c.managers["a:1"]
				m.failsAs(test.method, test.kind)
				if test.method == "end" {
					close(m.sessions)
				}
				client, stop := c.run("a:1")
				client.Report("t1", &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING})
				after(40 * time.Millisecond)
				want(t, "events", c.noted(), test.want)
				stop()
			})
		})
	}
}

func TestClient_ReportsUntilAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		client, stop := c.run("a:1")
		defer stop()
		client.Report("t1", &api.TaskStatus{Message: "old"})
		after(time.Minute)
		m := c.up("a:1")
		m.fails("status")
		client.Report("t1", &api.TaskStatus{Message: "new"})
		after(time.Minute)
		if got := m.told("t1"); got != "new" {
			t.Errorf("S1: the manager has %q", got)
		}
		client.Report("t2", &api.TaskStatus{Message: "later"})
		after(time.Second)
		if got := m.told("t2"); got != "later" {
			t.Errorf("S1: the manager has %q", got)
		}
	})
}

// What a task comes to is told at once; what it only passes through, when it stays there for long enough to be seen.
// A leader that has much to do takes its time, also with what this node reports: a new session would not be faster, and cost it more.
func TestClient_WaitsForASlowLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a:1")
		m := c.managers["a:1"]
		m.slow = time.Minute
		client, stop := c.run("a:1")
		defer stop()
		after(time.Second)
		client.Report("t1", &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING, Message: "runs"})
		after(2 * m.slow)
		if events := c.noted(); len(events) != 1 {
			t.Errorf("events %q, want one session", events)
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.statuses["t1"] != "runs" {
			t.Errorf("statuses %v", m.statuses)
		}
	})
}

func TestClient_ReportsAtOnceThatATaskRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a:1")
		client, stop := c.run("a:1")
		defer stop()
		after(time.Minute)
		m := c.managers["a:1"]
		client.Report("t1", &api.TaskStatus{State: api.TaskState_TASK_STATE_PREPARING, Message: "preparing"})
		after(50 * time.Millisecond)
		if got := m.told("t1"); got != "" {
			t.Errorf("told that a task is %s, which may have passed", got)
		}
		client.Report("t1", &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING, Message: "running"})
		after(time.Millisecond)
		if got := m.told("t1"); got != "running" {
			t.Errorf("1 ms after a task ran, the manager has %q", got)
		}
		client.Report("t2", &api.TaskStatus{State: api.TaskState_TASK_STATE_PREPARING, Message: "preparing"})
		after(150 * time.Millisecond)
		if got := m.told("t2"); got != "preparing" {
			t.Errorf("of a task that is being prepared, the manager has %q", got)
		}
	})
}

// TestClient_LeavesTasksAloneWithoutManagers: nothing is assigned while there is no manager for ten minutes, and what became of tasks meanwhile
// is told as soon as there is one.
func TestClient_LeavesTasksAloneWithoutManagers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a:1")
		client, stop := c.run("a:1")
		defer stop()
		after(time.Minute)
		c.noted()
		c.down("a:1")
		after(5 * time.Minute)
		client.Report("t1", &api.TaskStatus{Message: "failed meanwhile"})
		after(5 * time.Minute)
		want(t, "events", slices.Compact(c.noted()), []string{"disconnected"}) // by each try
		m := c.up("a:1")
		after(10 * time.Second) // longer than the longest pause
		want(t, "events", c.noted()[:1], []string{"registered a:1"})
		if got := m.told("t1"); got != "failed meanwhile" {
			t.Errorf("the manager has %q", got)
		}
	})
}

func TestClient_RetriesDecay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		_, stop := c.run("a:1", "b:1", "c:1")
		defer stop()
		after(time.Minute)
		c.mu.Lock()
		before := len(c.dials)
		c.mu.Unlock()
		after(time.Minute)
		c.mu.Lock()
		defer c.mu.Unlock()
		if n := len(c.dials) - before; n > 3*15 || n < 3*7 {
			t.Errorf("Q5: %d connections tried in a minute", n)
		}
	})
}

func TestClient_LearnsTheManagersAndRemembersThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a:1")
		c.managers["a:1"].peers = []*api.ManagerPeer{{NodeId: "n1", Address: "a:1"}, {NodeId: "n2", Address: "b:1"}}
		client, stop := c.run("a:1")
		after(time.Second)
		want(t, "managers", client.Managers(), []string{"a:1", "b:1"})
		holders, err := client.Locate(t.Context(), "sha256:00")
		if err != nil || len(holders) != 1 {
			t.Errorf("Locate: %v, %v", holders, err)
		}
		answers, err := client.IssueWorkloads(t.Context(), []*api.WorkloadRequest{{TaskId: "t1"}})
		if err != nil || len(answers) != 1 || answers[0].GetRefusal() != "of t1" {
			t.Errorf("IssueWorkloads: %v, %v", answers, err)
		}
		if _, err := client.IssueWorkloads(t.Context(), nil); fault.KindOf(err) != fault.Precondition {
			t.Errorf("IssueWorkloads of an old manager: %v", err)
		}
		client.DescriptionChanged()
		client.DescriptionChanged()
		after(time.Second)
		want(t, "events", c.noted(), []string{"registered a:1", "description"})
		stop()
		if _, err := client.Locate(t.Context(), "sha256:00"); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("Locate without a session: %v", err)
		}
		if _, err := client.IssueWorkloads(t.Context(), nil); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("IssueWorkloads without a session: %v", err)
		}
	})
}

func TestNew_NeedsAManager(t *testing.T) {
	if _, err := session.New(session.Config{Dir: t.TempDir(), Managers: []string{"nonsense"}}); !errors.Is(err, session.ErrNoManagers) {
		t.Errorf("got %v", err)
	}
}

// TestClient_LeavesAManagerWhoseMachineIsGone long before a heartbeat is due.
func TestClient_LeavesAManagerWhoseMachineIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a:1", "b:1")
		for _, m := range c.managers {
			m.peers = []*api.ManagerPeer{{NodeId: "na", Address: "a:1"}, {NodeId: "nb", Address: "b:1"}}
		}
		client, stop := c.run("a:1", "b:1")
		defer stop()
		after(time.Second)
		used, other, address := "na", "nb", "b:1"
		if c.noted()[0] == "registered b:1" {
			used, other, address = "nb", "na", "a:1"
		}
		client.Doubt(used) // but it answers
		after(time.Second)
		want(t, "events of a session with a manager that answers", c.noted(), nil)
		hanging := c.managers[map[string]string{"na": "a:1", "nb": "b:1"}[used]]
		hanging.mu.Lock()
		hanging.hang = true
		hanging.mu.Unlock()
		if !client.Uses(used) || client.Uses(other) || client.Uses("") {
			t.Errorf("it does not know that its session is with %s", used)
		}
		client.Doubt(other)
		client.Doubt("no node")
		after(time.Second)
		want(t, "events", c.noted(), nil)
		client.Doubt(used)
		after(1100 * time.Millisecond)
		want(t, "events", c.noted(), []string{"disconnected", "registered " + address})
	})
}

// A manager that names no managers says nothing of where they are.
func TestClient_KeepsTheManagersWhenNoneIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "a:1")
		m := c.managers["a:1"]
		m.peers = []*api.ManagerPeer{{NodeId: "na", Address: "a:1"}}
		client, stop := c.run("a:1")
		defer stop()
		after(time.Second)
		m.mu.Lock()
		m.peers = nil
		m.mu.Unlock()
		m.fails("heartbeat")
		after(time.Minute)
		want(t, "events", c.noted(), []string{"registered a:1", "disconnected", "registered a:1"})
		want(t, "managers", client.Managers(), []string{"a:1"})
		if !client.Uses("na") {
			t.Error("it does not know any more that its session is with na")
		}
	})
}
