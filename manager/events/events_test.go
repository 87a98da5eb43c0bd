package events_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/events"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// manager has a store, and events of it.
type manager struct {
	t     *testing.T
	store *store.Store
	log   *events.Log

	mu         sync.Mutex
	leadership store.Leadership
	changed    chan struct{}
}

// start runs the log until the test ends. It is called within a bubble.
func start(t *testing.T, objects ...object.Object) *manager {
	t.Helper()
	m := &manager{t: t, store: storetest.New(t), changed: make(chan struct{}), leadership: store.Leadership{Term: 1, LeaderID: "m1"}}
	if len(objects) > 0 {
		storetest.Create(t, m.store, objects...)
	}
	var err error
	if m.log, err = events.New(events.Config{Store: m.store, Leadership: m.leads}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.log.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return m
}

func (m *manager) leads() (store.Leadership, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leadership, m.changed
}

func (m *manager) elect(term uint64, id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leadership = store.Leadership{Term: term, LeaderID: id}
	close(m.changed)
	m.changed = make(chan struct{})
}

// change changes an object as fn says, in a log entry of its own.
func change[T object.Object](m *manager, id string, fn func(T)) {
	m.t.Helper()
	err := m.store.Update(m.t.Context(), "", func(tx store.Tx) error {
		old, err := store.Get[T](tx, id)
		if err != nil {
			return err
		}
		o := proto.Clone(old).(T)
		fn(o)
		return tx.Update(o)
	})
	if err != nil {
		m.t.Fatal(err)
	}
}

func (m *manager) remove(kind object.Kind, id string) {
	m.t.Helper()
	if err := m.store.Update(m.t.Context(), "", func(tx store.Tx) error { return tx.Delete(kind, id) }); err != nil {
		m.t.Fatal(err)
	}
}

// stream is a watch's, and has what was sent.
type stream struct {
	grpc.ServerStream
	ctx  context.Context
	hold chan struct{} // or nil: the first response waits for its end
	mu   sync.Mutex
	got  []*api.WatchEventsResponse
}

func (s *stream) Context() context.Context { return s.ctx }

// as returns a context of a caller of some kind.
func as(ctx context.Context, kind api.Caller) context.Context {
	return authz.NewContext(ctx, authz.Caller{Kind: kind})
}

func (s *stream) Send(r *api.WatchEventsResponse) error {
	s.mu.Lock()
	s.got = append(s.got, r)
	s.mu.Unlock()
	if s.hold != nil {
		select {
		case <-s.hold:
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
	return nil
}

func (s *stream) events() (out []*api.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.got {
		out = append(out, r.GetEvents()...)
	}
	return out
}

// watch watches from now on; the function that it returns gives all events so far.
func (m *manager) watch(r *api.WatchEventsRequest) func() []*api.Event {
	m.t.Helper()
	s := &stream{ctx: as(m.t.Context(), api.Caller_CALLER_OPERATOR)}
	done := make(chan error, 1)
	go func() { done <- m.log.WatchEvents(r, s) }()
	synctest.Wait()
	return func() []*api.Event {
		m.t.Helper()
		synctest.Wait()
		select {
		case err := <-done:
			m.t.Fatalf("the watch ended: %v", err)
		default:
		}
		return s.events()
	}
}

// past returns what a watch until now gets, and its error.
func (m *manager) past(r *api.WatchEventsRequest) ([]*api.Event, error) {
	m.t.Helper()
	r.Until = timestamppb.New(time.Now())
	s := &stream{ctx: as(m.t.Context(), api.Caller_CALLER_OPERATOR)}
	err := m.log.WatchEvents(r, s)
	return s.events(), err
}

// lines are events as TYPE ACTION ID KEY=VALUE….
func lines(all []*api.Event) []string {
	out := []string{}
	for _, e := range all {
		line := e.GetType() + " " + e.GetAction() + " " + e.GetActorId()
		for _, key := range slices.Sorted(maps.Keys(e.GetAttributes())) {
			line += " " + key + "=" + e.GetAttributes()[key]
		}
		out = append(out, line)
	}
	return out
}

func service(id, name string) *api.Service {
	return &api.Service{Id: id, Spec: &api.ServiceSpec{
		Annotations: &api.Annotations{Name: name, Labels: map[string]string{"tier": name}},
		Task:        &api.TaskSpec{Container: &api.ContainerSpec{Image: "app:1", Env: []string{"PASSWORD=canary"}}},
		Replicated:  &api.ReplicatedService{Replicas: 1},
	}}
}

func task(id, serviceID, serviceName string) *api.Task {
	return &api.Task{
		Id: id, ServiceId: serviceID, ServiceName: serviceName, Slot: 1, Status: &api.TaskStatus{State: api.TaskState_TASK_STATE_NEW},
		Spec: &api.TaskSpec{
			Container: &api.ContainerSpec{Image: "app:1", Labels: map[string]string{"part": "app"}},
			Resources: &api.ResourceRequirements{Limits: &api.Resources{MemoryBytes: 1024}},
		},
	}
}

func node(id, hostname string) *api.Node {
	return &api.Node{
		Id: id, Spec: &api.NodeSpec{Annotations: &api.Annotations{}, Availability: api.Availability_AVAILABILITY_ACTIVE}, Role: api.Role_ROLE_WORKER,
		Description: &api.NodeDescription{Hostname: hostname}, Status: &api.NodeStatus{State: api.NodeState_NODE_STATE_READY},
	}
}

func TestWatch_TellsWhatHappens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t, node("n1", "host1"))
		got := m.watch(&api.WatchEventsRequest{})
		storetest.Create(t, m.store, service("s1", "web"))
		storetest.Create(t, m.store, task("t1", "s1", "web"))
		change(m, "t1", func(x *api.Task) { x.Status.State, x.Status.Err = api.TaskState_TASK_STATE_PENDING, "no suitable node" })
		change(m, "t1", func(x *api.Task) {
			x.NodeId, x.Status.State, x.Status.Err = "n1", api.TaskState_TASK_STATE_ASSIGNED, ""
		})
		change(m, "t1", func(x *api.Task) {
			x.Status.State = api.TaskState_TASK_STATE_RUNNING
			x.Status.Container = &api.ContainerStatus{Health: api.HealthState_HEALTH_STATE_STARTING}
		})
		change(m, "t1", func(x *api.Task) { x.Status.Container.Health = api.HealthState_HEALTH_STATE_UNHEALTHY })
		change(m, "t1", func(x *api.Task) { x.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN })
		change(m, "t1", func(x *api.Task) {
			x.Status.State, x.Status.Err = api.TaskState_TASK_STATE_FAILED, "out of memory"
			x.Status.Container.OomKilled, x.Status.Container.ExitCode = true, 137
		})
		m.remove(object.KindTask, "t1")
		change(m, "s1", func(x *api.Service) { x.Spec.Replicated.Replicas, x.Spec.Task.Container.Image = 3, "app:2" })
		change(m, "s1", func(x *api.Service) { x.UpdateStatus = &api.UpdateStatus{State: api.UpdateState_UPDATE_STATE_UPDATING} })
		change(m, "s1", func(x *api.Service) { x.SpecVersion++ }) // of no interest
		change(m, "n1", func(x *api.Node) { x.Spec.Availability = api.Availability_AVAILABILITY_DRAIN })
		change(m, "n1", func(x *api.Node) { x.Status.State = api.NodeState_NODE_STATE_DOWN })
		change(m, "n1", func(x *api.Node) { x.Description.EngineVersion = "2" }) // of no interest
		storetest.Create(t, m.store, &api.Secret{Id: "x1", Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: "db"}, Data: []byte("canary")}})
		change(m, "x1", func(x *api.Secret) { x.Spec.Annotations.Labels = map[string]string{"a": "b"} })
		m.remove(object.KindSecret, "x1")
		storetest.Create(t, m.store, &api.Config{Id: "c1", Spec: &api.ConfigSpec{Annotations: &api.Annotations{Name: "conf"}, Data: []byte("canary")}})
		m.remove(object.KindConfig, "c1")
		m.remove(object.KindService, "s1")
		m.remove(object.KindNode, "n1")
		onNode := " name=web.1 node=host1 nodeid=n1 service=web serviceid=s1"
		want := []string{
			"service create s1 name=web",
			"task create t1 image=app:1 name=web.1 service=web serviceid=s1",
			"task pending t1 error=no suitable node name=web.1 service=web serviceid=s1",
			"task assigned t1" + onNode,
			"task running t1" + onNode,
			"task health_status: unhealthy t1" + onNode,
			"task oom t1 memory=1024 name=web.1 node=host1 nodeid=n1 service=web serviceid=s1",
			"task failed t1 error=out of memory exitCode=137" + onNode,
			"task remove t1" + onNode,
			"service update s1 image.new=app:2 image.old=app:1 name=web replicas.new=3 replicas.old=1",
			"service update s1 name=web updatestate.new=updating",
			"node update n1 availability.new=drain availability.old=active name=host1",
			"node update n1 name=host1 state.new=down state.old=ready",
			"secret create x1 name=db",
			"secret update x1 name=db",
			"secret remove x1 name=db",
			"config create c1 name=conf",
			"config remove c1 name=conf",
			"service remove s1 name=web",
			"node remove n1 name=host1",
		}
		if diff := cmp.Diff(want, lines(got())); diff != "" {
			t.Error(diff)
		}
		for _, e := range got() {
			if strings.Contains(e.String(), "canary") {
				t.Errorf("an event tells a secret: %v", e)
			}
			if e.GetTime().AsTime().IsZero() || e.GetIndex() == 0 {
				t.Errorf("no time or index: %v", e)
			}
		}
	})
}

func TestWatch_GoesOnAfterAnEventOnAnyManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t, node("n1", "host1"))
		storetest.Create(t, m.store, service("s1", "web"), service("s2", "db"), task("t1", "s1", "web")) // one entry of the log
		storetest.Create(t, m.store, service("s3", "last"))
		all, err := m.past(&api.WatchEventsRequest{Since: timestamppb.New(time.Unix(0, 0))})
		if err != nil || len(all) != 4 {
			t.Fatalf("%v, %v", lines(all), err)
		}
		for i, e := range all {
			rest, err := m.past(&api.WatchEventsRequest{After: e.GetCursor()})
			if diff := cmp.Diff(lines(all[i+1:]), lines(rest)); diff != "" || err != nil {
				t.Errorf("after %s: %v, %s", e.GetCursor(), err, diff)
			}
		}
		rest, err := m.past(&api.WatchEventsRequest{After: fmt.Sprint(all[0].GetIndex())})
		if diff := cmp.Diff(lines(all[3:]), lines(rest)); diff != "" || err != nil {
			t.Errorf("after a whole entry: %v, %s", err, diff)
		}
		if _, err := m.past(&api.WatchEventsRequest{After: "0"}); fault.KindOf(err) != fault.Exhausted {
			t.Errorf("before what the manager has seen: %v", err)
		}
		for _, after := range []string{"99", "x", "1.x", "-1", "1.2.3"} {
			if _, err := m.past(&api.WatchEventsRequest{After: after}); fault.KindOf(err) != fault.Invalid {
				t.Errorf("after %s: %v", after, err)
			}
		}
	})
}

func TestWatch_WhoIsTooSlowIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t, node("n1", "host1"), service("s1", "web"))
		s := &stream{ctx: t.Context(), hold: make(chan struct{})}
		done := make(chan error, 1)
		go func() { done <- m.log.WatchEvents(&api.WatchEventsRequest{}, s) }()
		synctest.Wait()
		const services, size = 200, 100 << 10 // more than is kept
		for i := range services {
			large := service(fmt.Sprint("large", i), fmt.Sprint("large", i))
			large.Spec.Annotations.Labels["large"] = strings.Repeat("x", size)
			storetest.Create(t, m.store, large)
			synctest.Wait()
		}
		close(s.hold)
		if err := <-done; fault.KindOf(err) != fault.Exhausted || len(s.events()) != 0 {
			t.Errorf("%v after %d events", err, len(s.events()))
		}
		kept, err := m.past(&api.WatchEventsRequest{Since: timestamppb.New(time.Unix(0, 0))})
		if most := 16 << 20 / size; err != nil || len(kept) == 0 || len(kept) > most {
			t.Errorf("%d events are kept, more than %d, %v", len(kept), most, err)
		}
	})
}

// A task that gets ready, is so no more, and whose checks say the same in other words.
func TestWatch_TellsOfReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t)
		storetest.Create(t, m.store, task("t1", "s1", "web"))
		say := func(state api.TaskState, ready bool, why string) {
			change(m, "t1", func(x *api.Task) {
				x.Status = &api.TaskStatus{State: state, Err: why, Readiness: &api.Readiness{Ready: ready}}
			})
		}
		const running = api.TaskState_TASK_STATE_RUNNING
		say(running, false, "")
		say(running, false, "not ready: exit code 1: a")
		say(running, true, "")
		say(running, false, "not ready: exit code 1: b")
		say(running, false, "not ready: exit code 1: c")
		say(api.TaskState_TASK_STATE_SHUTDOWN, false, "")
		told, err := m.past(&api.WatchEventsRequest{Since: timestamppb.New(time.Unix(0, 0))})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range told {
			text := e.GetAction()
			if why := e.GetAttributes()["error"]; why != "" {
				text += " because " + why
			}
			got = append(got, text)
		}
		want := []string{"create", "running", "readiness: ready", "readiness: lost because not ready: exit code 1: b", "shutdown"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestWatch_Filters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t)
		on := task("t1", "s1", "web")
		on.NodeId = "n1"
		storetest.Create(t, m.store, node("n1", "host1"), service("s1", "web"), service("s2", "web2"), on, task("t2", "s2", "web2"))
		change(m, "t1", func(x *api.Task) {
			x.Status.State = api.TaskState_TASK_STATE_RUNNING
			x.Status.Container = &api.ContainerStatus{Health: api.HealthState_HEALTH_STATE_HEALTHY}
		})
		for _, test := range []struct{ filters, want string }{
			{"", "node:create:n1 service:create:s1 service:create:s2 task:create:t1 task:create:t2 task:health_status: healthy:t1 task:running:t1"},
			{"type=service", "service:create:s1 service:create:s2"},
			{"type=service type=node", "node:create:n1 service:create:s1 service:create:s2"},
			{"event=running", "task:running:t1"},
			{"event=health_status", "task:health_status: healthy:t1"},
			{"event=readiness", ""},
			{"service=web type=service", "service:create:s1"},
			{"service=s2", "service:create:s2 task:create:t2"},
			{"node=host1 event=create", "node:create:n1 task:create:t1"},
			{"task=web.1 event=create", "task:create:t1"},
			{"label=tier=web2", "service:create:s2"},
			{"label=part label=image=app:1 service=web", "task:create:t1"},
			{"label=nodeid=n1 event=create", "task:create:t1"},
			{"secret=s1", ""},
			{"scope=swarm type=node", "node:create:n1"},
			{"scope=local", ""},
		} {
			r := &api.WatchEventsRequest{Since: timestamppb.New(time.Unix(0, 0))}
			byKey := map[string]*api.EventFilter{}
			for _, condition := range strings.Fields(test.filters) {
				key, value, _ := strings.Cut(condition, "=")
				if byKey[key] == nil {
					byKey[key] = &api.EventFilter{Key: key}
					r.Filters = append(r.Filters, byKey[key])
				}
				byKey[key].Values = append(byKey[key].Values, value)
			}
			got, err := m.past(r)
			var texts []string
			for _, e := range got {
				texts = append(texts, e.GetType()+":"+e.GetAction()+":"+e.GetActorId())
			}
			if text := strings.Join(texts, " "); text != test.want || err != nil {
				t.Errorf("%s: got %s, want %s, %v", test.filters, text, test.want, err)
			}
		}
		for _, bad := range []*api.EventFilter{{Key: "image", Values: []string{"x"}}, {Key: "type"}} {
			if _, err := m.past(&api.WatchEventsRequest{Filters: []*api.EventFilter{bad}}); fault.KindOf(err) != fault.Invalid {
				t.Errorf("%v: %v", bad, err)
			}
		}
	})
}

func TestWatch_BetweenTwoTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t)
		begun := time.Now()
		for i := range 5 {
			time.Sleep(time.Minute)
			storetest.Create(t, m.store, service(fmt.Sprint("s", i), fmt.Sprint("web", i)))
		}
		s := &stream{ctx: t.Context()}
		at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(begun.Add(d)) }
		done := make(chan error, 1)
		go func() {
			done <- m.log.WatchEvents(&api.WatchEventsRequest{Since: at(4 * time.Minute), Until: at(6 * time.Minute)}, s)
		}()
		synctest.Wait()
		time.Sleep(30 * time.Second)
		storetest.Create(t, m.store, service("s5", "in"))
		time.Sleep(30*time.Second + 1)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want := []string{"service create s3 name=web3", "service create s4 name=web4", "service create s5 name=in"}
		if diff := cmp.Diff(want, lines(s.events())); diff != "" {
			t.Error(diff)
		}
		if since := s.got[0].GetCompleteSince().AsTime(); since.After(begun) {
			t.Errorf("complete since %v only, though it runs since %v", since, begun)
		}
		if _, err := m.past(&api.WatchEventsRequest{After: "1", Since: at(0)}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("a place and a time: %v", err)
		}
	})
}

func TestWatch_TellsWhoLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t, node("m1", "host1"), node("m2", "host2"))
		got := m.watch(&api.WatchEventsRequest{})
		m.elect(2, "") // nobody yet
		synctest.Wait()
		m.elect(2, "m2")
		synctest.Wait()
		m.elect(3, "m1")
		synctest.Wait()
		storetest.Create(t, m.store, service("s1", "web"))
		want := []string{"node leader m2 name=host2 term=2", "node leader m1 name=host1 term=3", "service create s1 name=web"}
		if diff := cmp.Diff(want, lines(got())); diff != "" {
			t.Error(diff)
		}
		for i, e := range got() {
			rest, err := m.past(&api.WatchEventsRequest{After: e.GetCursor()})
			if diff := cmp.Diff(want[i+1:], lines(rest)); diff != "" || err != nil {
				t.Errorf("after %s: %v, %s", e.GetCursor(), err, diff)
			}
		}
	})
}

func TestWatch_ABreakInWhatIsKnownEndsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t, service("s1", "web"))
		s := &stream{ctx: t.Context()}
		done := make(chan error, 1)
		go func() { done <- m.log.WatchEvents(&api.WatchEventsRequest{}, s) }()
		synctest.Wait()
		snapshot, err := m.store.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		jumped := proto.CloneOf(snapshot)
		jumped.Index += 100
		if err := m.store.Restore(jumped); err != nil { // as a snapshot of another manager
			t.Fatal(err)
		}
		storetest.Create(t, m.store, service("s2", "web2"))
		if err := <-done; fault.KindOf(err) != fault.Exhausted {
			t.Errorf("got %v, and %v", err, lines(s.events()))
		}
	})
}

func TestWatch_EndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.log.WatchEvents(&api.WatchEventsRequest{}, &stream{ctx: ctx}) }()
		synctest.Wait()
		cancel()
		if err := <-done; err == nil {
			t.Error("no error")
		}
	})
}

func TestWatch_ViewersLearnOfNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := start(t)
		storetest.Create(t, m.store, service("s1", "web"), &api.Secret{Id: "x1", Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: "db"}}})
		viewer := as(t.Context(), api.Caller_CALLER_VIEWER)
		watch := func(filters ...*api.EventFilter) ([]string, error) {
			s := &stream{ctx: viewer}
			err := m.log.WatchEvents(&api.WatchEventsRequest{
				Since: timestamppb.New(time.Unix(0, 0)), Until: timestamppb.New(time.Now()), Filters: filters,
			}, s)
			return lines(s.events()), err
		}
		got, err := watch()
		if diff := cmp.Diff([]string{"service create s1 name=web"}, got); diff != "" || err != nil {
			t.Errorf("%v, %s", err, diff)
		}
		for _, filter := range []*api.EventFilter{{Key: "secret", Values: []string{"db"}}, {Key: "type", Values: []string{"service", "Secret"}}} {
			if got, err := watch(filter); fault.KindOf(err) != fault.PermissionDenied || len(got) != 0 {
				t.Errorf("%v: %v, %v", filter, got, err)
			}
		}
	})
}
