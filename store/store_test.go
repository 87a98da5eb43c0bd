package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

func service(id, name string) *api.Service {
	return &api.Service{Id: id, Spec: &api.ServiceSpec{Annotations: &api.Annotations{Name: name}}}
}

func secret(id, name string, data []byte) *api.Secret {
	return &api.Secret{Id: id, Spec: &api.SecretSpec{Annotations: &api.Annotations{Name: name}, Data: data}}
}

func task(id, service string, slot uint64, node string) *api.Task {
	return &api.Task{Id: id, ServiceId: service, Slot: slot, NodeId: node}
}

func update(t *testing.T, s *store.Store, fn func(store.Tx) error) error {
	t.Helper()
	return s.Update(t.Context(), "", fn)
}

func ids[T store.Object](list []T) string {
	var all []string
	for _, o := range list {
		all = append(all, o.GetId())
	}
	return strings.Join(all, " ")
}

func TestUpdate_SetsMeta(t *testing.T) {
	s := storetest.New(t)
	storetest.Create(t, s, service("a", "web"))
	first := storetest.Get[*api.Service](t, s, "a")
	if first.Meta.Version != 1 || first.Meta.CreatedAt == nil || first.Meta.UpdatedAt == nil {
		t.Errorf("meta after creation: %v", first.Meta)
	}
	err := update(t, s, func(tx store.Tx) error {
		o := proto.CloneOf(first)
		o.Spec.Annotations.Name = "web2"
		return tx.Update(o)
	})
	if err != nil {
		t.Fatal(err)
	}
	second := storetest.Get[*api.Service](t, s, "a")
	if second.Meta.Version != 2 || !proto.Equal(second.Meta.CreatedAt, first.Meta.CreatedAt) {
		t.Errorf("meta after update: %v, before: %v", second.Meta, first.Meta)
	}
	if first.Spec.Annotations.Name != "web" {
		t.Error("the update changed an object that a reader holds")
	}
}

func TestUpdate_Refuses(t *testing.T) {
	tests := []struct {
		name string
		want error
		fn   func(store.Tx) error
	}{
		{"an id twice", store.ErrExists, func(tx store.Tx) error { return tx.Create(service("a", "other")) }},
		{"a name twice", store.ErrNameConflict, func(tx store.Tx) error { return tx.Create(service("b", "web")) }},
		{"a name twice in one transaction", store.ErrNameConflict, func(tx store.Tx) error {
			return errors.Join(tx.Create(service("b", "new")), tx.Create(service("c", "new")))
		}},
		{"no id", store.ErrInvalid, func(tx store.Tx) error { return tx.Create(service("", "b")) }},
		{"an old version", store.ErrConflict, func(tx store.Tx) error { return tx.Update(service("a", "web")) }},
		{"an unknown object", store.ErrNotFound, func(tx store.Tx) error { return tx.Update(service("z", "z")) }},
		{"a deletion of nothing", store.ErrNotFound, func(tx store.Tx) error { return tx.Delete(object.KindService, "z") }},
		{"a too large object", store.ErrTooLarge, func(tx store.Tx) error {
			return tx.Create(secret("s", "s", make([]byte, store.MaxObjectSize)))
		}},
		{"a shared object", store.ErrInvalid, func(tx store.Tx) error {
			o, err := store.Get[*api.Service](tx, "a")
			return errors.Join(err, tx.Update(o))
		}},
		{"a new object with the id of a deleted one", store.ErrExists, func(tx store.Tx) error {
			return errors.Join(tx.Delete(object.KindService, "a"), tx.Create(service("a", "web")))
		}},
		{"a too large transaction", store.ErrTooLarge, func(tx store.Tx) error {
			for i := range 5 {
				if err := tx.Create(secret(fmt.Sprint("s", i), fmt.Sprint("s", i), make([]byte, store.MaxObjectSize-1000))); err != nil {
					return fmt.Errorf("not yet: %v", err)
				}
			}
			return nil
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := storetest.New(t)
			storetest.Create(t, s, service("a", "web"))
			if err := update(t, s, test.fn); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
			if got := ids(storetest.List[*api.Service](t, s)); got != "a" {
				t.Errorf("services afterwards: %s", got)
			}
		})
	}
}

func TestUpdate_AllowsSwappedNamesAndShortLives(t *testing.T) {
	s := storetest.New(t)
	storetest.Create(t, s, service("a", "one"), service("b", "two"))
	err := update(t, s, func(tx store.Tx) error {
		a, _ := store.Get[*api.Service](tx, "a")
		b, _ := store.Get[*api.Service](tx, "b")
		a, b = proto.CloneOf(a), proto.CloneOf(b)
		a.Spec.Annotations.Name, b.Spec.Annotations.Name = "tmp", "one"
		if err := errors.Join(tx.Update(a), tx.Update(b)); err != nil {
			return err
		}
		a = proto.CloneOf(a)
		a.Spec.Annotations.Name = "two"
		return errors.Join(tx.Update(a), tx.Create(service("c", "three")), tx.Delete(object.KindService, "c"))
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := ids(storetest.List[*api.Service](t, s, store.ByName("two"))); got != "a" {
		t.Errorf("two is %s", got)
	}
	if got := ids(storetest.List[*api.Service](t, s)); got != "a b" {
		t.Errorf("services: %s", got)
	}
}

func TestUpdate_RunsAgainAfterAConflict(t *testing.T) {
	s := storetest.New(t)
	storetest.Create(t, s, &api.Service{Id: "a", Spec: &api.ServiceSpec{}})
	var wg sync.WaitGroup
	const writers = 32
	for range writers {
		wg.Go(func() {
			err := s.Update(t.Context(), "", func(tx store.Tx) error {
				o, err := store.Get[*api.Service](tx, "a")
				if err != nil {
					return err
				}
				o = proto.CloneOf(o)
				o.SpecVersion++
				return tx.Update(o)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := storetest.Get[*api.Service](t, s, "a").SpecVersion; got != writers {
		t.Errorf("%d of %d increments are there", got, writers)
	}
}

func TestUpdate_RequestIDIsAppliedOnce(t *testing.T) {
	s := storetest.New(t)
	runs := 0
	create := func() error {
		return s.Update(t.Context(), "request-1", func(tx store.Tx) error {
			runs++
			return tx.Create(service(object.NewID(), fmt.Sprint("web", runs)))
		})
	}
	if err := create(); err != nil {
		t.Fatal(err)
	}
	err := create()
	var duplicate *store.DuplicateError
	if !errors.As(err, &duplicate) || !errors.Is(err, store.ErrDuplicate) || runs != 1 {
		t.Fatalf("second request: %v after %d runs", err, runs)
	}
	want := storetest.List[*api.Service](t, s)[0].Id
	if len(duplicate.Created) != 1 || duplicate.Created[0].ID != want {
		t.Errorf("created %v, want %s", duplicate.Created, want)
	}
	if err := s.Update(t.Context(), "~mine", func(store.Tx) error { return nil }); !errors.Is(err, store.ErrInvalid) {
		t.Errorf("reserved request id: %v", err)
	}
}

func TestRequire_ConflictsWhenTheObjectMoved(t *testing.T) {
	s := storetest.New(t)
	storetest.Create(t, s, secret("s", "db", []byte("x")))
	interfered := false
	runs := 0
	err := update(t, s, func(tx store.Tx) error {
		runs++
		found, err := store.Get[*api.Secret](tx, "s")
		if err != nil {
			return err
		}
		tx.RequireKind(object.KindTask)
		if err := errors.Join(tx.Require(found), tx.Create(service("a", "web"))); err != nil || interfered {
			return err
		}
		interfered = true
		return update(t, s, func(tx store.Tx) error { return tx.Delete(object.KindSecret, "s") })
	})
	if !errors.Is(err, store.ErrNotFound) || runs != 2 {
		t.Errorf("got %v after %d runs, want ErrNotFound after 2", err, runs)
	}
}

func TestRequireKind_ConflictsWhenAnyObjectMoved(t *testing.T) {
	s := storetest.New(t)
	storetest.Create(t, s, secret("s", "db", []byte("x")))
	runs := 0
	err := update(t, s, func(tx store.Tx) error {
		runs++
		tx.RequireKind(object.KindService)
		if users, err := store.List[*api.Service](tx); err != nil || len(users) > 0 {
			return errors.Join(err, errors.New("in use"))
		}
		if runs == 1 {
			storetest.Create(t, s, service("a", "web"))
		}
		return tx.Delete(object.KindSecret, "s")
	})
	if err == nil || err.Error() != "in use" || runs != 2 {
		t.Errorf("got %v after %d runs, want a refusal after 2", err, runs)
	}
}

func TestList_ByEachIndex(t *testing.T) {
	s := storetest.New(t)
	reference := &api.TaskSpec{Container: &api.ContainerSpec{Secrets: []*api.SecretReference{
		{SecretId: "s1"}, {SecretId: "s1"}, {SecretId: "s2"},
	}}}
	withSecret := task("t4", "b", 1, "n2")
	withSecret.Spec = reference
	user := service("b", "web2")
	user.Spec.Task = reference
	storetest.Create(t, s,
		service("a", "web"), user, secret("s1", "db", nil), secret("s2", "key", nil),
		task("t1", "a", 1, "n1"), task("t2", "a", 2, "n2"), task("t3", "a", 1, ""), withSecret,
		&api.Node{Id: "n1", Description: &api.NodeDescription{Hostname: "host"}},
		&api.Node{Id: "n2", Description: &api.NodeDescription{Hostname: "host"}, Spec: &api.NodeSpec{Annotations: &api.Annotations{Name: "given"}}},
	)
	got := map[string]string{
		"all services":      ids(storetest.List[*api.Service](t, s)),
		"name":              ids(storetest.List[*api.Service](t, s, store.ByName("web"))),
		"name prefix":       ids(storetest.List[*api.Service](t, s, store.ByNamePrefix("web"))),
		"hostname":          ids(storetest.List[*api.Node](t, s, store.ByName("host"))),
		"given name":        ids(storetest.List[*api.Node](t, s, store.ByName("given"))),
		"id prefix":         ids(storetest.List[*api.Task](t, s, store.ByIDPrefix("t"))),
		"service":           ids(storetest.List[*api.Task](t, s, store.ByService("a"))),
		"node":              ids(storetest.List[*api.Task](t, s, store.ByNode("n2"))),
		"slot":              ids(storetest.List[*api.Task](t, s, store.BySlot("a", 1))),
		"service and node":  ids(storetest.List[*api.Task](t, s, store.ByService("a"), store.ByNode("n2"))),
		"secret in tasks":   ids(storetest.List[*api.Task](t, s, store.ByReferencedSecret("s1"))),
		"secret in service": ids(storetest.List[*api.Service](t, s, store.ByReferencedSecret("s2"))),
		"nothing":           ids(storetest.List[*api.Task](t, s, store.ByNode("n"))),
	}
	want := map[string]string{
		"all services": "a b", "name": "a", "name prefix": "a b", "hostname": "n1 n2", "given name": "n2", "id prefix": "t1 t2 t3 t4",
		"service": "t1 t2 t3", "node": "t2 t4", "slot": "t1 t3", "service and node": "t2", "secret in tasks": "t4",
		"secret in service": "b", "nothing": "",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("lists (-want +got):\n%s", diff)
	}
	err := s.View(func(tx store.ReadTx) error {
		_, err := store.List[*api.Secret](tx, store.ByNode("n1"))
		return err
	})
	if !errors.Is(err, store.ErrInvalid) {
		t.Errorf("a missing index: %v", err)
	}
}

func TestWatch_SnapshotThenDeltas(t *testing.T) {
	s := storetest.New(t)
	storetest.Create(t, s, service("a", "web"))
	w, err := s.Watch(t.Context(), 0, object.KindService)
	if err != nil {
		t.Fatal(err)
	}
	storetest.Create(t, s, secret("s", "db", nil))
	ready := w.Ready()
	storetest.Create(t, s, service("b", "web2"))
	<-ready
	if got, err := store.List[*api.Service](w.Snapshot()); err != nil || ids(got) != "a" {
		t.Errorf("snapshot: %s, %v", ids(got), err)
	}
	batch, err := w.Next(t.Context())
	if err != nil || len(batch.Changes) != 1 || batch.Changes[0].Object.GetId() != "b" || batch.Changes[0].Action != store.ActionCreate {
		t.Fatalf("first batch: %v, %v", batch, err)
	}
	created := batch.Changes[0]
	if !created.At.Equal(created.Object.GetMeta().GetCreatedAt().AsTime()) {
		t.Errorf("proposed at %v, created at %v", created.At, created.Object.GetMeta().GetCreatedAt().AsTime())
	}
	if _, ok, err := w.TryNext(); ok || err != nil {
		t.Errorf("more than there is: %v, %v", ok, err)
	}
	if err := update(t, s, func(tx store.Tx) error { return tx.Delete(object.KindService, "a") }); err != nil {
		t.Fatal(err)
	}
	resumed, err := s.Watch(t.Context(), w.Position())
	if err != nil {
		t.Fatal(err)
	}
	batch, err = resumed.Next(t.Context())
	if err != nil || batch.Changes[0].Action != store.ActionDelete || batch.Changes[0].Object.GetId() != "a" || batch.Changes[0].Old == nil {
		t.Errorf("resumed: %v, %v", batch, err)
	}
	if removed := batch.Changes[0]; removed.At.Before(created.At) {
		t.Errorf("removed at %v, before %v", removed.At, created.At)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := resumed.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after ctx ended: %v", err)
	}
	if _, err := s.Watch(ctx, 99); !errors.Is(err, context.Canceled) {
		t.Errorf("resume from the future: %v", err)
	}
}

func TestWatch_TooSlowMustResync(t *testing.T) {
	s := storetest.New(t)
	w, err := s.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5000 {
		storetest.Create(t, s, task(fmt.Sprint("t", i), "a", 1, ""))
	}
	if _, err := w.Next(t.Context()); !errors.Is(err, store.ErrResync) {
		t.Errorf("got %v, want ErrResync", err)
	}
	if _, err := s.Watch(t.Context(), 1); !errors.Is(err, store.ErrResync) {
		t.Errorf("resume: got %v, want ErrResync", err)
	}
}

func TestBatch_SharesTheLogFairly(t *testing.T) {
	s := storetest.New(t)
	w, err := s.Watch(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	const n = 1001
	done, err := s.Batch(t.Context(), n, func(tx store.Tx, i int) error {
		return tx.Create(task(fmt.Sprintf("t%04d", i), "s", uint64(i), "n"))
	})
	if done != n || err != nil {
		t.Fatalf("%d done: %v", done, err)
	}
	seen, batches := 0, 0
	for {
		batch, ok, err := w.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		for _, change := range batch.Changes {
			if want := fmt.Sprintf("t%04d", seen); change.Object.GetId() != want {
				t.Fatalf("got %s, want %s", change.Object.GetId(), want)
			}
			seen++
		}
		batches++
	}
	if seen != n || batches < 3 || batches > 10 {
		t.Errorf("%d objects in %d transactions", seen, batches)
	}
	wrong := errors.New("wrong")
	done, err = s.Batch(t.Context(), n, func(tx store.Tx, i int) error {
		if i == 900 {
			return wrong
		}
		return tx.Delete(object.KindTask, fmt.Sprintf("t%04d", i))
	})
	if left := len(storetest.List[*api.Task](t, s)); !errors.Is(err, wrong) || done >= 900 || left != n-done {
		t.Errorf("%d done, %d left: %v", done, left, err)
	}
}

// TestBatchIndependent_HasSeveralUnderWay: each of them is there once; what came before an error is, too.
func TestBatchIndependent_HasSeveralUnderWay(t *testing.T) {
	s := storetest.New(t)
	const n = 2001
	create := func(tx store.Tx, i int) error {
		return tx.Create(task(fmt.Sprintf("t%04d", i), "s", uint64(i), "n"))
	}
	if done, err := s.BatchIndependent(t.Context(), n, create); done != n || err != nil {
		t.Fatalf("%d done: %v", done, err)
	}
	if left := len(storetest.List[*api.Task](t, s)); left != n {
		t.Fatalf("%d objects, want %d", left, n)
	}
	// All change the same object as well: each transaction but the first to come is made again.
	storetest.Create(t, s, service("counter", "counter"))
	count := func(tx store.Tx, i int) error {
		old, err := store.Get[*api.Service](tx, "counter")
		if err != nil {
			return err
		}
		counter := proto.CloneOf(old)
		counter.SpecVersion++
		return errors.Join(tx.Delete(object.KindTask, fmt.Sprintf("t%04d", i)), tx.Update(counter))
	}
	wrong := errors.New("wrong")
	done, err := s.BatchIndependent(t.Context(), n, func(tx store.Tx, i int) error {
		if i == 900 {
			return wrong
		}
		return count(tx, i)
	})
	left := map[string]bool{}
	for _, o := range storetest.List[*api.Task](t, s) {
		left[o.GetId()] = true
	}
	if !errors.Is(err, wrong) || done == 0 || done > 900 || !left["t0900"] {
		t.Errorf("%d done: %v", done, err)
	}
	for i := range done {
		if id := fmt.Sprintf("t%04d", i); left[id] {
			t.Errorf("%d done, but %s is there", done, id)
		}
	}
	if got := storetest.Get[*api.Service](t, s, "counter").GetSpecVersion(); int(got) != n-len(left) {
		t.Errorf("counted %d, want %d", got, n-len(left))
	}
}
