package forward_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/manager/forward"
	"github.com/skep-io/skep/store"
)

// election is who leads, as all managers of a test see it.
type election struct {
	mu      sync.Mutex
	leader  string
	changed chan struct{}
}

func (e *election) elect(leader string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leader = leader
	close(e.changed)
	e.changed = make(chan struct{})
}

func (e *election) seenBy(node string) func() (store.Leadership, <-chan struct{}) {
	return func() (store.Leadership, <-chan struct{}) {
		e.mu.Lock()
		defer e.mu.Unlock()
		leadership := store.Leadership{LeaderID: e.leader, Self: e.leader == node}
		if e.leader != "" {
			leadership.LeaderAddr = e.leader + ":2377"
		}
		return leadership, e.changed
	}
}

// cluster is some managers in one process.
type cluster struct {
	election
	managers map[string]*manager
}

// manager serves one method that needs the leader and one that doesn't.
type manager struct {
	api.UnimplementedControlServer
	id       string
	client   api.ControlClient // as a person uses it
	server   *grpc.Server
	listener *grpctest.Listener
	forward  *forward.Forwarder

	mu     sync.Mutex
	calls  []metadata.MD                   // of RemoveService, as it got them; guarded by mu
	answer func(ctx context.Context) error // of RemoveService; guarded by mu
}

func (m *manager) RemoveService(ctx context.Context, request *api.RemoveServiceRequest) (*api.RemoveServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	m.mu.Lock()
	m.calls = append(m.calls, md)
	answer := m.answer
	m.mu.Unlock()
	if answer != nil {
		if err := answer(ctx); err != nil {
			return nil, err
		}
	}
	return &api.RemoveServiceResponse{ServiceId: request.GetService() + " by " + m.id}, nil
}

func (m *manager) answers(answer func(ctx context.Context) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answer = answer
}

func (m *manager) seen() []metadata.MD {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls
}

func newCluster(t *testing.T, ids ...string) *cluster {
	c := &cluster{election: election{changed: make(chan struct{})}, managers: map[string]*manager{}}
	for _, id := range ids {
		c.managers[id] = c.start(t, id)
	}
	return c
}

func (c *cluster) start(t *testing.T, id string) *manager {
	t.Helper()
	m := &manager{id: id, listener: grpctest.Listen()}
	var err error
	m.forward, err = forward.New(forward.Config{
		NodeID: id, Leadership: c.seenBy(id),
		Dial: func(address, nodeID string) (*grpc.ClientConn, error) {
			if address != nodeID+":2377" {
				t.Errorf("dialled %s as node %s", address, nodeID)
			}
			return grpctest.NewClient(c.managers[nodeID].listener.DialContext)
		},
		Origin: func(context.Context) metadata.MD { return metadata.Pairs("skep-forwarded-node", "someone") },
	})
	if err != nil {
		t.Fatal(err)
	}
	toStatus := func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		response, err := handler(ctx, request)
		return response, fault.Status(err)
	}
	m.server = grpc.NewServer(grpc.ChainUnaryInterceptor(toStatus, m.forward.Unary()))
	api.RegisterControlServer(m.server, m)
	grpctest.Serve(t, m.server, m.listener)
	m.client = api.NewControlClient(grpctest.Dial(t, m.listener))
	t.Cleanup(func() {
		if err := m.forward.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return m
}

// remove calls the method that needs the leader, through a manager.
func (c *cluster) remove(ctx context.Context, through string) (string, error) {
	response, err := c.managers[through].client.RemoveService(ctx, &api.RemoveServiceRequest{Service: "web"})
	return response.GetServiceId(), fault.FromStatus(err)
}

func TestForward_EveryManagerAnswers(t *testing.T) {
	c := newCluster(t, "m1", "m2")
	c.elect("m2")
	for _, through := range []string{"m1", "m2", "m1"} {
		if got, err := c.remove(t.Context(), through); got != "web by m2" || err != nil {
			t.Errorf("through %s: got %q, %v", through, got, err)
		}
	}
	for i, md := range c.managers["m2"].seen() {
		if len(md.Get("skep-request-id")) != 1 {
			t.Errorf("call %d has request ids %v, want one", i, md.Get("skep-request-id"))
		}
	}
	md := c.managers["m2"].seen()[0]
	if got := strings.Join(append(md.Get("skep-forwarded-by"), md.Get("skep-forwarded-node")...), " "); got != "m1 someone" {
		t.Errorf("the leader was told of %q, want the manager and the caller", got)
	}
}

func TestForward_KeepsTheRequestIDAndTheError(t *testing.T) {
	c := newCluster(t, "m1", "m2")
	c.elect("m2")
	c.managers["m2"].answers(func(context.Context) error { return fault.New(fault.Unavailable, "not now") })
	_, err := c.remove(metadata.AppendToOutgoingContext(t.Context(), "skep-request-id", "mine"), "m1")
	if fault.KindOf(err) != fault.Unavailable || err.Error() != "not now" {
		t.Errorf("got %v, want the leader's error", err)
	}
	calls := c.managers["m2"].seen()
	if len(calls) != 1 {
		t.Fatalf("the leader was asked %d times, although it answered", len(calls))
	}
	if got := calls[0].Get("skep-request-id"); len(got) != 1 || got[0] != "mine" {
		t.Errorf("request id: got %v", got)
	}
}

func TestForward_NeverTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2", "m3")
		c.elect("m3")
		ctx := metadata.AppendToOutgoingContext(t.Context(), "skep-forwarded-by", "m2")
		_, err := c.remove(ctx, "m1")
		if fault.KindOf(err) != fault.NotLeader || !strings.Contains(err.Error(), "m3:2377") {
			t.Errorf("got %v, want that another manager leads", err)
		}
		if n := len(c.managers["m3"].seen()); n > 0 {
			t.Errorf("the call was forwarded again, %d times", n)
		}
	})
}

func TestForward_WaitsForALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		go func() {
			time.Sleep(3 * time.Second)
			c.elect("m2")
		}()
		start := time.Now()
		if got, err := c.remove(t.Context(), "m1"); got != "web by m2" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		if waited := time.Since(start); waited != 3*time.Second {
			t.Errorf("waited %s, want the 3s until the election and no more", waited)
		}
	})
}

func TestForward_GivesUpWithoutALeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		start := time.Now()
		_, err := c.remove(t.Context(), "m1")
		if fault.KindOf(err) != fault.Unavailable || !strings.HasPrefix(err.Error(), "The swarm does not have a leader.") {
			t.Errorf("got %v", err)
		}
		if waited := time.Since(start); waited != 10*time.Second {
			t.Errorf("waited %s, want 10s", waited)
		}
	})
}

func TestForward_EndsWithTheCallersTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := c.remove(ctx, "m1"); fault.KindOf(err) != fault.Unavailable {
			t.Errorf("got %v", err)
		}
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("waited %s, want 1s", waited)
		}
	})
}

func TestForward_SurvivesTheLossOfTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2", "m3")
		c.elect("m2")
		got := make(chan error, 1)
		entered := make(chan struct{})
		c.managers["m2"].answers(func(ctx context.Context) error {
			close(entered)
			<-ctx.Done() // the leader hangs
			return context.Cause(ctx)
		})
		go func() {
			answer, err := c.remove(t.Context(), "m1")
			if err == nil && answer != "web by m3" {
				t.Errorf("got %q, want the new leader's answer", answer)
			}
			got <- err
		}()
		<-entered
		c.elect("m3")
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		first, second := c.managers["m2"].seen(), c.managers["m3"].seen()
		if a, b := first[0].Get("skep-request-id")[0], second[0].Get("skep-request-id")[0]; a != b {
			t.Errorf("the second try has request id %s, the first had %s", b, a)
		}
	})
}

func TestForward_SurvivesALeaderThatStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2", "m3")
		c.elect("m2")
		if _, err := c.remove(t.Context(), "m1"); err != nil {
			t.Fatal(err)
		}
		c.managers["m2"].server.Stop()
		go func() {
			time.Sleep(2 * time.Second)
			c.elect("m1")
		}()
		if got, err := c.remove(t.Context(), "m1"); got != "web by m1" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

func TestForward_NamesALeaderThatDoesNotAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		c.elect("m2")
		c.managers["m2"].server.Stop()
		_, err := c.remove(t.Context(), "m1")
		if fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "the leader of the swarm at m2:2377 does not answer") {
			t.Errorf("got %v", err)
		}
	})
}

func TestForward_TriesAgainWhenLeadershipIsLostInTheHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, "m1", "m2")
		c.elect("m1")
		c.managers["m1"].answers(func(context.Context) error {
			c.elect("m2")
			return fault.NewNotLeader("m2:2377")
		})
		if got, err := c.remove(t.Context(), "m1"); got != "web by m2" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// A manager that stops, as one that the group has removed, hears of no other leader: calls that wait for one end.
func TestForward_EndsWhenClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, leader := range map[string]string{"without a leader": "", "while the leader is at it": "m2"} {
			c := newCluster(t, "m1", "m2")
			c.elect(leader)
			c.managers["m2"].answers(func(ctx context.Context) error {
				<-ctx.Done()
				return ctx.Err()
			})
			start, ended := time.Now(), make(chan error, 1)
			go func() {
				_, err := c.remove(t.Context(), "m1")
				ended <- err
			}()
			synctest.Wait()
			if err := c.managers["m1"].forward.Close(); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; fault.KindOf(err) != fault.Unavailable || !strings.Contains(err.Error(), "this manager stops") {
				t.Errorf("%s: got %v", name, err)
			}
			if waited := time.Since(start); waited > time.Second {
				t.Errorf("%s: waited %s, want 1s at most", name, waited)
			}
		}
	})
}
