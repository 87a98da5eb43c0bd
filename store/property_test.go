package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// modelTask is a task as the model knows it.
type modelTask struct {
	service, node string
	slot          uint64
}

// model is what the store should hold: services by id with their names, and tasks.
type model struct {
	s        *store.Store
	services map[string]string
	tasks    map[string]modelTask
}

func pick(t *rapid.T, label string, n int) string {
	return fmt.Sprint(label, rapid.IntRange(0, n).Draw(t, label))
}

func (m *model) update(fn func(store.Tx) error) error {
	return m.s.Update(context.Background(), "", fn)
}

func (m *model) createService(t *rapid.T) {
	id, name := pick(t, "s", 8), pick(t, "name", 4)
	err := m.update(func(tx store.Tx) error { return tx.Create(service(id, name)) })
	_, exists := m.services[id]
	taken := slices.Contains(slices.Collect(maps.Values(m.services)), name)
	switch {
	case exists && !errors.Is(err, store.ErrExists), !exists && taken && !errors.Is(err, store.ErrNameConflict), !exists && !taken && err != nil:
		t.Fatalf("create %s %s: %v", id, name, err)
	case err == nil:
		m.services[id] = name
	}
}

func (m *model) renameService(t *rapid.T) {
	id, name := pick(t, "s", 8), pick(t, "name", 4)
	err := m.update(func(tx store.Tx) error {
		o, err := store.Get[*api.Service](tx, id)
		if err != nil {
			return err
		}
		o = proto.CloneOf(o)
		o.Spec.Annotations.Name = name
		return tx.Update(o)
	})
	old, exists := m.services[id]
	taken := old != name && slices.Contains(slices.Collect(maps.Values(m.services)), name)
	switch {
	case !exists && !errors.Is(err, store.ErrNotFound), exists && taken && !errors.Is(err, store.ErrNameConflict), exists && !taken && err != nil:
		t.Fatalf("rename %s to %s: %v", id, name, err)
	case err == nil:
		m.services[id] = name
	}
}

func (m *model) deleteService(t *rapid.T) {
	id := pick(t, "s", 8)
	err := m.update(func(tx store.Tx) error { return tx.Delete(object.KindService, id) })
	if _, exists := m.services[id]; exists != (err == nil) {
		t.Fatalf("delete %s: %v", id, err)
	}
	delete(m.services, id)
}

// putTasks changes several tasks in one transaction, which half the time fails as a whole.
func (m *model) putTasks(t *rapid.T) {
	changed := maps.Clone(m.tasks)
	abort := rapid.Bool().Draw(t, "abort")
	wrong := errors.New("wrong")
	n := rapid.IntRange(1, 4).Draw(t, "n")
	type step struct {
		id  string
		new modelTask
	}
	var steps []step
	for range n {
		steps = append(steps, step{pick(t, "t", 20), modelTask{pick(t, "s", 3), pick(t, "n", 3), uint64(rapid.IntRange(1, 3).Draw(t, "slot"))}})
	}
	err := m.update(func(tx store.Tx) error {
		for _, step := range steps {
			o, err := store.Get[*api.Task](tx, step.id)
			switch {
			case errors.Is(err, store.ErrNotFound):
				err = tx.Create(task(step.id, step.new.service, step.new.slot, step.new.node))
			case err == nil:
				o = proto.CloneOf(o)
				o.ServiceId, o.Slot, o.NodeId = step.new.service, step.new.slot, step.new.node
				err = tx.Update(o)
			}
			if err != nil {
				return err
			}
			changed[step.id] = step.new
		}
		if abort {
			return wrong
		}
		return nil
	})
	if abort && !errors.Is(err, wrong) || !abort && err != nil {
		t.Fatalf("put tasks: %v", err)
	}
	if !abort {
		m.tasks = changed
	}
}

// restart replaces the store by a copy of its state.
func (m *model) restart(t *rapid.T) {
	before := m.hash(t)
	fresh, err := store.NewLocal("testcluster")
	if err != nil {
		t.Fatal(err)
	}
	snapshot, err := m.s.Snapshot(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := proto.Marshal(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	decoded := &api.StoreSnapshot{}
	if err := proto.Unmarshal(encoded, decoded); err != nil {
		t.Fatal(err)
	}
	if err := fresh.Restore(decoded); err != nil {
		t.Fatal(err)
	}
	m.s = fresh
	if after := m.hash(t); after != before {
		t.Fatalf("a restored state differs: %s, %s", before, after)
	}
}

func (m *model) hash(t *rapid.T) string {
	index, hash, err := m.s.StateHash(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%d %x", index, hash)
}

// check compares everything, by each index.
func (m *model) check(t *rapid.T) {
	err := m.s.View(func(tx store.ReadTx) error {
		services, err := store.List[*api.Service](tx)
		if err != nil {
			return err
		}
		got := map[string]string{}
		for _, s := range services {
			got[s.Id] = s.Spec.Annotations.Name
			byName, err := store.List[*api.Service](tx, store.ByName(s.Spec.Annotations.Name))
			if err != nil || ids(byName) != s.Id {
				return fmt.Errorf("by name %s: %s, %w", s.Spec.Annotations.Name, ids(byName), err)
			}
		}
		if diff := cmp.Diff(m.services, got); diff != "" {
			return fmt.Errorf("services:\n%s", diff)
		}
		return m.checkTasks(tx)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (m *model) checkTasks(tx store.ReadTx) error {
	lists := map[string]store.By{}
	for i := range 4 {
		lists[fmt.Sprint("s", i)] = store.ByService(fmt.Sprint("s", i))
		lists[fmt.Sprint("n", i)] = store.ByNode(fmt.Sprint("n", i))
		lists[fmt.Sprint("slot", i)] = store.BySlot("s1", uint64(i))
	}
	for name, by := range lists {
		var want []string
		for id, task := range m.tasks {
			if task.service == name || task.node == name || task.service == "s1" && fmt.Sprint("slot", task.slot) == name {
				want = append(want, id)
			}
		}
		slices.Sort(want)
		found, err := store.List[*api.Task](tx, by)
		if err != nil {
			return err
		}
		var got []string
		for _, o := range found {
			got = append(got, o.Id)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("tasks by %s:\n%s", name, diff)
		}
	}
	return nil
}

// The store behaves as a map with unique names and secondary indexes, also after its state went through a snapshot.
func TestStore_BehavesAsItsModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, err := store.NewLocal("testcluster")
		if err != nil {
			t.Fatal(err)
		}
		m := &model{s: s, services: map[string]string{}, tasks: map[string]modelTask{}}
		t.Repeat(map[string]func(*rapid.T){
			"create service": m.createService,
			"rename service": m.renameService,
			"delete service": m.deleteService,
			"put tasks":      m.putTasks,
			"restart":        m.restart,
			"":               m.check,
		})
	})
}
