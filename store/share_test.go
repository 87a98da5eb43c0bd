package store_test

import (
	"fmt"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// All tasks of a service have one spec in memory, which may be large: as they are made, as they and their service change, and after a
// restart.
func TestStore_TasksShareTheirSpec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m := g.first()
		spec := &api.TaskSpec{Container: &api.ContainerSpec{Image: "web", Args: []string{"a", "b"}}}
		web := service("web", "web")
		web.Spec.Task = proto.CloneOf(spec)
		storetest.Create(t, m.store, web)
		for i := range 5 {
			made := task(fmt.Sprint("t", i), "web", uint64(i+1), "")
			made.Spec = proto.CloneOf(spec)
			made.Grants = []*api.Grant{{Id: "g"}}
			storetest.Create(t, m.store, made)
		}
		for _, id := range []string{"t8", "t9"} {
			old := task(id, "web", 9, "")
			old.SpecVersion = 7
			old.Spec = &api.TaskSpec{Container: &api.ContainerSpec{Image: "older"}}
			storetest.Create(t, m.store, old)
		}
		checkShared(t, m.store, 5)

		changeTask(t, m.store, "t1", func(t *api.Task) { t.NodeId = "n" })
		changeTask(t, m.store, "t2", func(t *api.Task) { t.Status = &api.TaskStatus{Timestamp: timestamppb.Now()} })
		err := update(t, m.store, func(tx store.Tx) error {
			s, err := store.Get[*api.Service](tx, "web")
			if err != nil {
				return err
			}
			s = proto.CloneOf(s)
			s.UpdateStatus = &api.UpdateStatus{Message: "another"}
			s.PreviousSpec = proto.CloneOf(s.GetSpec())
			s.Spec.Replicated = &api.ReplicatedService{Replicas: 77}
			return tx.Update(s)
		})
		if err != nil {
			t.Fatal(err)
		}
		checkShared(t, m.store, 5)
		if s := storetest.Get[*api.Service](t, m.store, "web"); s.GetSpec().GetTask() != specOf(t, m.store, "t0") || s.GetPreviousSpec().GetTask() != specOf(t, m.store, "t0") {
			t.Error("a service that was scaled has a copy of its tasks' spec")
		}
		changeTask(t, m.store, "t3", func(t *api.Task) { t.Spec.Container.Image = "its own" })
		checkShared(t, m.store, 4)

		m.store.SetSnapshotInterval(1)
		changeTask(t, m.store, "t4", func(t *api.Task) { t.NodeId = "n" })
		synctest.Wait() // until the snapshot is written
		m.stop()
		m.start()
		g.await(m.leads)
		checkShared(t, m.store, 4)
		if specOf(t, m.store, "t8") != specOf(t, m.store, "t9") {
			t.Error("tasks of a former spec have a copy each")
		}
	})
}

// checkShared checks that the service and that many of its tasks have one spec, and that what the others have is theirs.
func checkShared(t *testing.T, s *store.Store, want int) {
	t.Helper()
	spec, got := storetest.Get[*api.Service](t, s, "web").GetSpec().GetTask(), 0
	for _, one := range storetest.List[*api.Task](t, s) {
		switch {
		case one.GetSpec() == spec:
			got++
		case proto.Equal(one.GetSpec(), spec):
			t.Errorf("task %s has a copy of the spec", one.GetId())
		}
	}
	if got != want {
		t.Errorf("%d tasks share the spec of their service, want %d", got, want)
	}
}

func changeTask(t *testing.T, s *store.Store, id string, change func(*api.Task)) {
	t.Helper()
	err := update(t, s, func(tx store.Tx) error {
		old, err := store.Get[*api.Task](tx, id)
		if err != nil {
			return err
		}
		changed := proto.CloneOf(old)
		change(changed)
		return tx.Update(changed)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func specOf(t *testing.T, s *store.Store, task string) *api.TaskSpec {
	t.Helper()
	return storetest.Get[*api.Task](t, s, task).GetSpec()
}
