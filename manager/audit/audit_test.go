package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// newLog returns the door of the only manager of a cluster.
func newLog(t *testing.T) *Log {
	t.Helper()
	s := storetest.New(t)
	storetest.Create(t, s, &api.Cluster{Id: "testcluster", Spec: &api.ClusterSpec{}})
	return reopened(t, s)
}

// reopened returns the door of another leader to the same store.
func reopened(t *testing.T, s *store.Store) *Log {
	t.Helper()
	var l *Log
	l, err := New(Config{NodeID: "m1", Store: s, Logger: slog.New(slog.DiscardHandler), Send: func(ctx context.Context, r *api.RecordAuditRequest) error {
		_, err := l.RecordAudit(ctx, r)
		return err
	}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// read returns what ReadAudit sends for a request.
func (l *Log) read(t *testing.T, request *api.ReadAuditRequest) (log *api.AuditLog, entries []*api.AuditEntry) {
	t.Helper()
	err := l.ReadAudit(request, &reading{ctx: t.Context(), take: func(r *api.ReadAuditResponse) error {
		if r.GetLog() != nil {
			log = r.GetLog()
		}
		entries = append(entries, r.GetEntries()...)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return log, entries
}

// reading is a stream of ReadAudit.
type reading struct {
	grpc.ServerStreamingServer[api.ReadAuditResponse]
	ctx  context.Context //nolint:containedctx // a stream has one
	take func(*api.ReadAuditResponse) error
}

func (r *reading) Context() context.Context            { return r.ctx }
func (r *reading) Send(m *api.ReadAuditResponse) error { return r.take(m) }

// shown is what people care about in entries.
func shown(entries []*api.AuditEntry) string {
	var out []string
	for _, entry := range entries {
		e := entry.GetEvent()
		text := fmt.Sprintf("%s %s %s: %s %s/%s", e.GetCallerKind(), e.GetCaller(), e.GetMethod(), e.GetResult(), e.GetObjectKind(), e.GetObjectName())
		if e.GetSummary() != "" {
			text += " (" + e.GetSummary() + ")"
		}
		out = append(out, text)
	}
	return strings.Join(out, "\n")
}

var (
	admin  = authz.Caller{Kind: api.Caller_CALLER_ADMIN, Address: "@0"}
	worker = authz.Caller{Kind: api.Caller_CALLER_WORKER, NodeID: "n1", Address: "10.0.0.1:99"}
)

// call calls a method of Control through the interceptor.
func (l *Log) call(ctx context.Context, method string, request proto.Message, handler func(context.Context) error) error {
	info := &grpc.UnaryServerInfo{FullMethod: "/skep.v1.Control/" + method}
	_, err := l.Unary()(ctx, request, info, func(ctx context.Context, _ any) (any, error) { return nil, handler(ctx) })
	return err
}

func TestUnary_RecordsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		ctx := authz.NewContext(metadata.NewIncomingContext(t.Context(), metadata.Pairs(requestIDKey, "r1")), admin)
		spec := &api.ServiceSpec{Annotations: &api.Annotations{Name: "web"}, Replicated: &api.ReplicatedService{Replicas: 1}}
		service := func(tx store.Tx, fn func(*api.Service)) error {
			changed := proto.CloneOf(storetest.Get[*api.Service](t, l.cfg.Store, "s1"))
			fn(changed)
			return tx.Update(changed)
		}
		commit := func(fn func(store.Tx) error) func(context.Context) error {
			return func(ctx context.Context) error { return l.cfg.Store.Update(ctx, "", fn) }
		}
		denied := fault.New(fault.PermissionDenied, "not yours")
		notFound := fault.New(fault.NotFound, "service s3cr3t not found")
		for _, c := range []struct {
			method  string
			request proto.Message
			handler func(context.Context) error
			want    error
		}{
			{"CreateService", &api.CreateServiceRequest{Spec: spec}, commit(func(tx store.Tx) error {
				return tx.Create(&api.Service{Id: "s1", Spec: proto.CloneOf(spec)})
			}), nil},
			{"UpdateService", &api.UpdateServiceRequest{ServiceId: "s1"}, commit(func(tx store.Tx) error {
				return service(tx, func(s *api.Service) {
					s.Spec.Replicated.Replicas, s.Spec.Annotations.Labels = 2, map[string]string{"a": "b"}
				})
			}), nil},
			{"GetJoinToken", &api.GetJoinTokenRequest{}, func(context.Context) error { return nil }, nil},
			{"ListServices", &api.ListServicesRequest{}, func(context.Context) error { return nil }, nil},
			{"GetNode", &api.GetNodeRequest{Node: "n2"}, func(context.Context) error { return denied }, denied},
			{"RemoveService", &api.RemoveServiceRequest{Service: "shop"}, func(context.Context) error { return notFound }, notFound},
			{"RemoveSecret", &api.RemoveSecretRequest{Secret: "db"}, func(context.Context) error { return fault.NewNotLeader("m2:1") }, fault.NewNotLeader("m2:1")},
			{"RemoveService", &api.RemoveServiceRequest{Service: "web"}, commit(func(tx store.Tx) error {
				return tx.Delete(3, "s1")
			}), nil},
		} {
			if err := l.call(ctx, c.method, c.request, c.handler); fault.KindOf(err) != fault.KindOf(c.want) || (err == nil) != (c.want == nil) {
				t.Errorf("%s: %v", c.method, err)
			}
		}
		l.Refused(authz.Refusal{Caller: worker, Method: "/skep.v1.Control/ListSecrets"})
		alice := authz.Caller{Kind: api.Caller_CALLER_VIEWER, User: "alice", Address: "10.0.0.9:1"}
		l.Refused(authz.Refusal{Caller: alice, Method: "/skep.v1.Control/RemoveSecret"})
		runFor(t, l, time.Second)
		want := strings.TrimSpace(`
admin uid 0 Control.CreateService: ok service/web (created)
admin uid 0 Control.UpdateService: ok service/web (changed spec.annotations.labels, spec.replicated.replicas)
admin uid 0 Control.GetJoinToken: ok /
admin uid 0 Control.RemoveService: ok service/web (removed)
admin uid 0 Control.GetNode: permission denied node/n2
admin uid 0 Control.RemoveService: not found service/shop
worker n1 Control.ListSecrets: refused /
viewer alice Control.RemoveSecret: refused /`)
		_, entries := l.read(t, &api.ReadAuditRequest{})
		if got := shown(entries); got != want {
			t.Errorf("the log says\n%s\nwant\n%s", got, want)
		}
		if e := entries[0].GetEvent(); e.GetRequestId() != "r1" || e.GetManager() != "m1" || e.GetObjectId() != "s1" || e.GetAddress() != "@" {
			t.Errorf("the first event is %v", e)
		}
	})
}

// runFor runs the log for a while of virtual time.
func runFor(t *testing.T, l *Log, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// What would hand out a secret without an entry hands out nothing (I16).
func TestUnary_AnswersOnlyWithAnEntry(t *testing.T) {
	l := newLog(t)
	ctx, cancel := context.WithCancel(authz.NewContext(t.Context(), admin))
	err := l.call(ctx, "GetJoinToken", &api.GetJoinTokenRequest{}, func(context.Context) error {
		cancel()
		return nil
	})
	if fault.KindOf(err) != fault.Unavailable {
		t.Errorf("without an entry: %v", err)
	}
}

func TestDelivered_IsThereOncePerSecretVersionAndNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		secret := func(version uint64) *api.Secret {
			return &api.Secret{Id: "x1", Version: version, Spec: &api.SecretSpec{
				Annotations: &api.Annotations{Name: "db"}, Data: []byte("canary"),
			}}
		}
		other := worker
		other.NodeID = "n2"
		for range 3 { // leaders
			for range 2 { // sessions
				l.Delivered(worker, secret(7))
				l.Delivered(worker, secret(8))
				l.Delivered(other, secret(7))
				runFor(t, l, time.Second)
			}
			l = reopened(t, l.cfg.Store)
		}
		_, entries := l.read(t, &api.ReadAuditRequest{})
		want := strings.TrimSpace(`
worker n1 Dispatcher.Assignments: ok secret/db (version 7)
worker n1 Dispatcher.Assignments: ok secret/db (version 8)
worker n2 Dispatcher.Assignments: ok secret/db (version 7)`)
		if got := shown(entries); got != want {
			t.Errorf("the log says\n%s\nwant\n%s", got, want)
		}
	})
}

func TestRecordAudit_ProvesWhichManagerSaysSo(t *testing.T) {
	l := newLog(t)
	ctx := authz.NewContext(t.Context(), authz.Caller{Kind: api.Caller_CALLER_MANAGER, NodeID: "m2"})
	if _, err := l.RecordAudit(ctx, &api.RecordAuditRequest{Events: []*api.AuditEvent{{Method: "A", Manager: "m1"}}}); err != nil {
		t.Fatal(err)
	}
	if _, entries := l.read(t, &api.ReadAuditRequest{}); entries[0].GetEvent().GetManager() != "m2" {
		t.Errorf("the log says %v", entries)
	}
	if _, err := l.RecordAudit(ctx, &api.RecordAuditRequest{Events: make([]*api.AuditEvent, maxEvents+1)}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("too many at once: %v", err)
	}
}

// fill writes n events.
func fill(t *testing.T, l *Log, n int) {
	t.Helper()
	_, err := l.cfg.Store.Batch(t.Context(), n, func(tx store.Tx, i int) error {
		return tx.Audit(chain.Encode(&api.AuditEvent{
			Method: "Control." + []string{"CreateSecret", "RemoveSecret"}[i%2], Caller: fmt.Sprintf("user%d", i%3), Result: "ok",
			ObjectKind: "secret", ObjectName: fmt.Sprintf("secret%d", i%5), Summary: strings.Repeat("x", 200),
		}))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadAudit_Filters(t *testing.T) {
	l := newLog(t)
	if log, entries := l.read(t, &api.ReadAuditRequest{}); len(entries) > 0 || log.GetHead().GetSequence() != 0 || log.GetClusterId() != "testcluster" {
		t.Errorf("an empty log is %v with %v", log, entries)
	}
	fill(t, l, 1500)
	for _, test := range []struct {
		request *api.ReadAuditRequest
		n       int
		first   uint64
	}{
		{&api.ReadAuditRequest{}, 1500, 1},
		{&api.ReadAuditRequest{After: 1400}, 100, 1401},
		{&api.ReadAuditRequest{After: 1500}, 0, 0},
		{&api.ReadAuditRequest{Limit: 10}, 10, 1491},
		{&api.ReadAuditRequest{Caller: "user1", Limit: 4}, 4, 1490},
		{&api.ReadAuditRequest{Caller: "user1"}, 500, 2},
		{&api.ReadAuditRequest{Method: "CreateSecret"}, 750, 1},
		{&api.ReadAuditRequest{Method: "Control.RemoveSecret"}, 750, 2},
		{&api.ReadAuditRequest{Object: "secret/secret4"}, 300, 5},
		{&api.ReadAuditRequest{Object: "secret4", Caller: "user0"}, 100, 10},
		{&api.ReadAuditRequest{Result: "refused"}, 0, 0},
		{&api.ReadAuditRequest{Since: timestamppb.New(time.Now().Add(time.Hour))}, 0, 0},
		{&api.ReadAuditRequest{Until: timestamppb.New(time.Now().Add(-time.Hour))}, 0, 0},
		{&api.ReadAuditRequest{Since: timestamppb.New(time.Now().Add(-time.Hour))}, 1500, 1},
	} {
		_, entries := l.read(t, test.request)
		if len(entries) != test.n || test.n > 0 && entries[0].GetSequence() != test.first {
			t.Errorf("%v: %d entries: %.200s", test.request, len(entries), shown(entries))
		}
	}
	err := l.ReadAudit(&api.ReadAuditRequest{After: 1501}, &reading{ctx: t.Context(), take: func(*api.ReadAuditResponse) error { return nil }})
	if fault.KindOf(err) != fault.NotFound {
		t.Errorf("after the end: %v", err)
	}
	err = l.ReadAudit(&api.ReadAuditRequest{Limit: maxLimit + 1}, &reading{ctx: t.Context()})
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("a limit beyond all: %v", err)
	}
}

// What is read from anywhere on is a chain from its anchor to the head, before and after old entries were dropped.
func TestReadAudit_IsAChainFromItsAnchor(t *testing.T) {
	l := newLog(t)
	fill(t, l, 1500)
	check := func(after uint64) {
		t.Helper()
		log, entries := l.read(t, &api.ReadAuditRequest{After: after})
		v, err := chain.NewVerifier(log.GetClusterId(), log.GetAnchor())
		if err == nil {
			err = v.Expect(log.GetHead())
		}
		for _, e := range entries {
			err = errors.Join(err, v.Add(e))
		}
		if _, finishErr := v.Finish(); errors.Join(err, finishErr) != nil || log.GetAnchor().GetSequence() < after {
			t.Errorf("after %d, from %d: %v", after, log.GetAnchor().GetSequence(), errors.Join(err, finishErr))
		}
	}
	for _, after := range []uint64{0, 1, 700, 1499, 1500} {
		check(after)
	}
	change(t, l.cfg.Store, func(c *api.Cluster) { c.Spec.AuditRetention = 150 << 10 })
	if err := l.prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if log, _ := l.read(t, &api.ReadAuditRequest{}); log.GetAnchor().GetSequence() < 500 {
		t.Errorf("the log begins after %d", log.GetAnchor().GetSequence())
	}
	for _, after := range []uint64{0, 1, 1000, 1500} {
		check(after)
	}
}

// change changes the cluster object.
func change(t *testing.T, s *store.Store, fn func(*api.Cluster)) {
	t.Helper()
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		c := proto.CloneOf(storetest.Get[*api.Cluster](t, s, "testcluster"))
		fn(c)
		return tx.Update(c)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestReadAudit_Follows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		fill(t, l, 3)
		ctx, cancel := context.WithCancel(t.Context())
		got, done := make(chan uint64, 100), make(chan error, 1)
		go func() {
			done <- l.ReadAudit(&api.ReadAuditRequest{Follow: true, Limit: 2, Caller: "user1"}, &reading{ctx: ctx, take: func(r *api.ReadAuditResponse) error {
				for _, e := range r.GetEntries() {
					got <- e.GetSequence()
				}
				return nil
			}})
		}()
		synctest.Wait()
		fill(t, l, 6)
		synctest.Wait()
		fill(t, l, 3)
		synctest.Wait()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the end: %v", err)
		}
		close(got)
		var sequences []uint64
		for s := range got {
			sequences = append(sequences, s)
		}
		if fmt.Sprint(sequences) != "[2 5 8 11]" {
			t.Errorf("followed %v", sequences)
		}
	})
}

func TestRetain_KeepsTheLogAtItsSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		change(t, l.cfg.Store, func(c *api.Cluster) { c.Spec.AuditRetention = 256 << 10 })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Retain(ctx) }()
		for range 20 {
			fill(t, l, 500)
			synctest.Wait()
			size := 0
			for _, s := range storetest.List[*api.AuditSegment](t, l.cfg.Store) {
				size += len(s.GetEntries())
			}
			if size > 256<<10 {
				t.Fatalf("the log has %d bytes", size)
			}
		}
		change(t, l.cfg.Store, func(c *api.Cluster) { c.Spec.AuditRetention = 1 })
		synctest.Wait()
		if n := len(storetest.List[*api.AuditSegment](t, l.cfg.Store)); n != 1 {
			t.Errorf("%d segments are left of the smallest log", n)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A flood of refused calls neither fills the log nor makes many writes, and its size is known (U1).
func TestLog_SurvivesAFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLog(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- l.Run(ctx) }()
		const calls = 20_000
		for i := range calls {
			stranger := authz.Caller{Kind: api.Caller_CALLER_ANYONE, Address: fmt.Sprintf("10.1.%d.%d:%d", i%100, i%200, i)}
			l.Refused(authz.Refusal{Caller: stranger, Method: "/skep.v1.Control/RemoveNode"})
		}
		time.Sleep(3 * window)
		cancel()
		<-done
		_, entries := l.read(t, &api.ReadAuditRequest{})
		counted := uint64(0)
		for _, e := range entries {
			counted += max(e.GetEvent().GetCount(), 1)
		}
		if len(entries) > 2*maxStrangers+1 || counted != calls {
			t.Errorf("%d entries that stand for %d of %d calls", len(entries), counted, calls)
		}
	})
}

// No value that is marked as a secret gets into an event: neither of a request, nor of an object that it changes (U2).
func TestEvents_HoldNoSecret(t *testing.T) {
	const canary = "canary-5f1d"
	l := newLog(t)
	check := func(what protoreflect.FullName, e *api.AuditEvent) {
		t.Helper()
		if strings.Contains(string(chain.Encode(e)), canary) {
			t.Errorf("%s: its event holds the secret: %v", what, e)
		}
	}
	requests, planted := 0, 0
	protoregistry.GlobalTypes.RangeMessages(func(kind protoreflect.MessageType) bool {
		name := kind.Descriptor().FullName()
		if name.Parent() != "skep.v1" {
			return true
		}
		requests++
		message := kind.New()
		if plant(message, canary, 0) {
			planted++
		}
		check(name, l.describe(authz.NewContext(t.Context(), admin), "/skep.v1.Control/CreateSecret", message.Interface()))
		o, ok := message.Interface().(store.Object)
		if !ok {
			return true
		}
		e := new(api.AuditEvent)
		describeChanges(e, []store.Change{
			{Action: store.ActionUpdate, Old: kind.New().Interface().(store.Object), Object: o},
			{Action: store.ActionCreate, Object: o},
		})
		check(name, e)
		return true
	})
	if requests < 50 || planted < 10 {
		t.Errorf("only %d messages, %d with secrets, were seen", requests, planted)
	}
}

// plant puts a canary into all fields that are marked as secrets, and other texts into the rest. It reports whether there was one.
func plant(m protoreflect.Message, canary string, depth int) (planted bool) {
	const maxDepth = 6
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		options, _ := field.Options().(*descriptorpb.FieldOptions)
		switch {
		case field.IsMap():
		case options.GetDebugRedact() && field.Kind() == protoreflect.BytesKind && !field.IsList():
			m.Set(field, protoreflect.ValueOfBytes([]byte(canary)))
			planted = true
		case options.GetDebugRedact() && field.Kind() == protoreflect.StringKind && !field.IsList():
			m.Set(field, protoreflect.ValueOfString(canary))
			planted = true
		case field.Kind() == protoreflect.StringKind && !field.IsList():
			m.Set(field, protoreflect.ValueOfString("harmless"))
		case field.Kind() == protoreflect.MessageKind && depth < maxDepth:
			if field.IsList() {
				planted = plant(m.Mutable(field).List().AppendMutable().Message(), canary, depth+1) || planted
			} else if field.ContainingOneof() == nil || m.WhichOneof(field.ContainingOneof()) == nil {
				planted = plant(m.Mutable(field).Message(), canary, depth+1) || planted
			}
		}
	}
	return planted
}

// BenchmarkUnary says what an entry costs a call that changes something: with and without it, on a store in memory.
func BenchmarkUnary(b *testing.B) {
	for name, method := range map[string]string{"recorded": "UpdateService", "not": "ListServices"} {
		b.Run(name, func(b *testing.B) {
			s := storetest.New(b)
			storetest.Create(b, s, &api.Service{Id: "s1", Spec: &api.ServiceSpec{
				Annotations: &api.Annotations{Name: "web"}, Replicated: &api.ReplicatedService{},
			}})
			l, err := New(Config{NodeID: "m1", Store: s, Logger: slog.New(slog.DiscardHandler), Send: func(context.Context, *api.RecordAuditRequest) error {
				return nil
			}})
			if err != nil {
				b.Fatal(err)
			}
			ctx := authz.NewContext(b.Context(), admin)
			for b.Loop() {
				err := l.call(ctx, method, &api.UpdateServiceRequest{ServiceId: "s1"}, func(ctx context.Context) error {
					return s.Update(ctx, "", func(tx store.Tx) error {
						old, err := store.Get[*api.Service](tx, "s1")
						if err != nil {
							return err
						}
						changed := proto.CloneOf(old)
						changed.Spec.Replicated.Replicas++
						return tx.Update(changed)
					})
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAuditProof says what it costs to show a node that the log has what it saw: in the middle of the default size, and at the head.
func BenchmarkAuditProof(b *testing.B) {
	s := storetest.New(b)
	const n = 180_000
	_, err := s.Batch(b.Context(), n, func(tx store.Tx, _ int) error {
		return tx.Audit(chain.Encode(&api.AuditEvent{Method: "Control.UpdateService", Summary: strings.Repeat("x", 130)}))
	})
	if err != nil {
		b.Fatal(err)
	}
	for name, sequence := range map[string]uint64{"head": n, "middle": n / 2} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				err := s.View(func(tx store.ReadTx) error {
					_, err := store.AuditProof(tx, sequence)
					return err
				})
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
