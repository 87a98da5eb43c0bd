package store_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// voters returns the raft ids of the members that vote.
func voters(s *store.Store) (ids []uint64) {
	for _, member := range s.Members() {
		if !member.GetLearner() {
			ids = append(ids, member.GetRaftId())
		}
	}
	return ids
}

// A manager that lost its disk joins again with the same node id, and replaces its former self in one step: before, the group
// has as many voters as ever.
func TestCluster_ManagerThatLostItsDiskJoinsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		g.interval = 20
		m1, m2, m3 := g.first(), g.join("m2"), g.join("m3")
		storetest.Create(t, g.leader().store, service("a", "web"))
		lost := m3.store.Status().RaftID
		m3.stop()

		g.add("m3")
		if _, err := g.leader().store.AddMember(t.Context(), "m3", "m3:1", store.Protocol); err != nil {
			t.Fatal(err)
		}
		if got := voters(m1.store); len(got) != 3 {
			t.Errorf("%d voters while the manager is not back: want its former self among 3", len(got))
		}
		// Its disk is lost once more before it came up.
		m3 = g.join("m3")
		g.await(func() bool { return len(m1.store.Members()) == 3 })
		g.same(m1, m2, m3)
		if got := voters(m1.store); len(got) != 3 {
			t.Errorf("%d voters", len(got))
		}
		if diff := cmp.Diff(m1.store.Members(), m3.store.Members(), protocmp.Transform()); diff != "" {
			t.Errorf("members differ:\n%s", diff)
		}
		err := m1.store.Deliver(t.Context(), "m3", &raftpb.Message{From: &lost})
		if !errors.Is(err, store.ErrRemoved) {
			t.Errorf("a message of its former self: %v", err)
		}
		// The new member has the vote: with it, another may be lost.
		m2.stop()
		storetest.Create(t, g.leader().store, service("b", "web2"))
		m1.stop()
		m1.start()
		storetest.Create(t, g.leader().store, service("c", "web3"))
		g.same(m1, m3)
	})
}

// The joint change is read back from the log, by a restart and by the way out of a lost quorum.
func TestCluster_JointChangeIsReadBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1, m2, m3 := g.first(), g.join("m2"), g.join("m3")
		m3.stop()
		m3 = g.join("m3")
		g.await(func() bool { return len(m1.store.Members()) == 3 && len(m2.store.Members()) == 3 })
		for _, m := range []*manager{m1, m2, m3} {
			m.stop()
			m.start()
		}
		storetest.Create(t, g.leader().store, service("a", "web"))
		g.same(m1, m2, m3)
		for _, m := range []*manager{m1, m2, m3} {
			m.stop()
		}
		if err := store.ForceNewCluster(m3.disk, "m3:1"); err != nil {
			t.Fatal(err)
		}
		m3.start()
		g.await(m3.leads)
		if got := ids(storetest.List[*api.Service](t, m3.store)); got != "a" {
			t.Errorf("services: %s", got)
		}
	})
}

// A member whose program does not know joint changes would stop at one: then the former self goes first, as it did before.
func TestCluster_ReplacesWithoutJointChangeBesideOlderPrograms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1 := g.first()
		g.protocol = 0
		m2 := g.join("m2")
		g.protocol = store.Protocol
		m3 := g.join("m3")
		m3.stop()
		g.add("m3")
		if _, err := m1.store.AddMember(t.Context(), "m3", "m3:1", store.Protocol); err != nil {
			t.Fatal(err)
		}
		if got := voters(m1.store); len(got) != 2 {
			t.Errorf("%d voters", len(got))
		}
		m3 = g.join("m3")
		g.same(m1, m2, m3)
	})
}

// A member that was removed is refused for ever: by those who saw it, after their restart, by a snapshot, and by those who came later.
func TestCluster_RemovedMembersAreRefusedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		g.interval = 20
		m1, m2, m3 := g.first(), g.join("m2"), g.join("m3")
		removed := m3.store.Status().RaftID
		m3.stop()
		g.mu.Lock()
		m3.store = nil
		g.mu.Unlock()
		if err := g.leader().store.RemoveMember(t.Context(), removed); err != nil {
			t.Fatal(err)
		}
		for i := range 100 { // the removal is in snapshots only
			storetest.Create(t, g.leader().store, task(fmt.Sprintf("t%03d", i), "s", 1, ""))
		}
		for _, m := range []*manager{m1, m2} {
			m.stop()
			m.start()
		}
		m4 := g.join("m4")
		for _, m := range []*manager{m1, m2, m4} {
			for kind := range raftpb.MessageType_name {
				message := &raftpb.Message{Type: raftpb.MessageType(kind).Enum(), From: &removed, Term: proto.Uint64(99)}
				if err := m.store.Deliver(t.Context(), "m3", message); !errors.Is(err, store.ErrRemoved) {
					t.Errorf("%s takes a %v of a removed member: %v", m.id, raftpb.MessageType(kind), err)
				}
			}
			err := g.leader().store.UpdateMember(t.Context(), removed, "m3", "m3:1", store.Protocol)
			if !errors.Is(err, store.ErrRemoved) {
				t.Errorf("%s updates a removed member: %v", m.id, err)
			}
		}
		g.same(m1, m2, m4)
	})
}

func TestUpdateMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1, m2 := g.first(), g.join("m2")
		id := m2.store.Status().RaftID
		if err := m1.store.UpdateMember(t.Context(), id, "m2", "elsewhere:1", 7); err != nil {
			t.Fatal(err)
		}
		g.same(m1, m2)
		for _, m := range []*manager{m1, m2} {
			for _, member := range m.store.Members() {
				if member.GetRaftId() == id && (member.GetAddress() != "elsewhere:1" || member.GetProtocol() != 7 || member.GetLearner()) {
					t.Errorf("on %s: %v", m.id, member)
				}
			}
		}
		joined, err := m1.store.AddMember(t.Context(), "m3", "m3:1", store.Protocol)
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			id   uint64
			node string
			want error
		}{
			{id, "m3", store.ErrInvalid},
			{id + 1, "m2", store.ErrInvalid},
			{joined.GetRaftId(), "m3", store.ErrBusy}, // a learner must not become a voter by it
		} {
			if err := m1.store.UpdateMember(t.Context(), test.id, test.node, "x:1", 0); !errors.Is(err, test.want) {
				t.Errorf("%x of %s: %v, want %v", test.id, test.node, err, test.want)
			}
		}
		err = m2.store.UpdateMember(t.Context(), id, "m2", "x:1", 0)
		if !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("on a follower: %v", err)
		}
	})
}
