package store_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// A state that was taken from a group of three goes on at a new manager, which is the only one, and grows again.
func TestBootstrapFrom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1, m2 := g.first(), g.join("m2")
		storetest.Create(t, g.leader().store, service("a", "web"))
		g.same(m1, m2)
		taken, err := m2.store.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		state := proto.CloneOf(taken)
		gone := m1.store.Status().RaftID
		m1.stop()
		m2.stop()

		m3 := g.add("m3")
		for _, former := range state.Members {
			if err := store.BootstrapFrom(m3.disk, proto.CloneOf(state), former); !errors.Is(err, store.ErrInvalid) {
				t.Errorf("as a former member: %v", err)
			}
		}
		self := &api.Member{RaftId: store.NewRaftID(), NodeId: "m3", Address: "m3:1"}
		if err := store.BootstrapFrom(m3.disk, state, self); err != nil {
			t.Fatal(err)
		}
		m3.start()
		g.await(m3.leads)
		storetest.Create(t, m3.store, service("b", "web2"))
		if got := ids(storetest.List[*api.Service](t, m3.store)); got != "a b" {
			t.Errorf("services: %s", got)
		}
		if version := storetest.Get[*api.Service](t, m3.store, "b").GetMeta().GetVersion(); version <= taken.GetIndex() {
			t.Errorf("a new object has version %d, the state was at %d", version, taken.GetIndex())
		}
		if members := m3.store.Members(); len(members) != 1 || members[0].NodeId != "m3" {
			t.Errorf("members: %v", members)
		}
		if err := m3.store.Deliver(t.Context(), "m1", &raftpb.Message{From: &gone}); !errors.Is(err, store.ErrRemoved) {
			t.Errorf("a former member: %v", err)
		}
		m4 := g.join("m4")
		g.same(m3, m4)
	})
}
