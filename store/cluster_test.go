package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
	"github.com/skep-io/skep/store/vfs"
)

func TestCluster_SingleManagerKeepsWritesOverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		g.interval = 50
		m := g.first()
		var want []string
		for round := range 5 {
			for i := range 30 {
				id := fmt.Sprintf("s%d-%02d", round, i)
				storetest.Create(t, m.store, service(id, id))
				want = append(want, id)
			}
			m.stop()
			if err := m.store.Update(t.Context(), "", func(tx store.Tx) error { return tx.Create(service("x", "x")) }); !errors.Is(err, store.ErrNotLeader) && !errors.Is(err, store.ErrStopped) {
				t.Errorf("update of a stopped store: %v", err)
			}
			m.start()
			g.await(m.leads)
			var got []string
			for _, s := range storetest.List[*api.Service](t, m.store) {
				got = append(got, s.Id)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("round %d (-want +got):\n%s", round, diff)
			}
		}
	})
}

func TestCluster_ThreeManagersReplicate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1 := g.first()
		storetest.Create(t, m1.store, service("a", "web"))
		m2, m3 := g.join("m2"), g.join("m3")
		w, err := m3.store.Watch(t.Context(), 0)
		if err != nil {
			t.Fatal(err)
		}
		storetest.Create(t, m1.store, service("b", "web2"))
		g.same(m1, m2, m3)
		if got := ids(storetest.List[*api.Service](t, m3.store)); got != "a b" {
			t.Errorf("on m3: %s", got)
		}
		if batch, err := w.Next(t.Context()); err != nil || batch.Changes[0].Object.GetId() != "b" {
			t.Errorf("watch on m3: %v, %v", batch, err)
		}
		err = m2.store.Update(t.Context(), "", func(store.Tx) error { return nil })
		var notLeader *store.NotLeaderError
		if !errors.As(err, &notLeader) || notLeader.LeaderID != "m1" || notLeader.LeaderAddr != "m1:1" {
			t.Errorf("update on a follower: %v", err)
		}
		status := m1.store.Status()
		if len(status.Members) != 3 || !status.Self || status.NodeID != "m1" || status.Applied != status.Committed {
			t.Errorf("status: %+v", status)
		}
		for _, member := range status.Members {
			if !member.Reachable || member.Member.Learner {
				t.Errorf("member %+v", member)
			}
		}
	})
}

// Any manager may be killed at any time: the others go on within seconds, and it catches up by log or by snapshot.
func TestCluster_SurvivesTheLossOfAnyManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		g.interval = 40
		managers := []*manager{g.first(), g.join("m2"), g.join("m3")}
		acknowledged := 0
		for round := range 9 {
			victim := managers[round%3]
			if round%2 == 0 {
				victim = g.leader()
			}
			victim.stop()
			g.mu.Lock()
			victim.store = nil
			g.mu.Unlock()
			began := time.Now()
			leader := g.leader()
			if took := time.Since(began); took > 5*time.Second {
				t.Errorf("round %d: %v without a leader", round, took)
			}
			for range 10 + round*15 {
				acknowledged++
				storetest.Create(t, leader.store, task(fmt.Sprintf("t%04d", acknowledged), "s", 1, ""))
			}
			victim.start()
			g.same(managers...)
		}
		if got := len(storetest.List[*api.Task](t, managers[0].store)); got != acknowledged {
			t.Errorf("%d of %d acknowledged writes are there", got, acknowledged)
		}
	})
}

func TestCluster_LeaderWithoutMajorityStepsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		managers := []*manager{g.first(), g.join("m2"), g.join("m3")}
		old := g.leader()
		g.mu.Lock()
		g.cut[old.id] = true
		g.mu.Unlock()
		// It may have been deposed without knowing it: then it refuses nothing by what it knew (I1).
		moment, over := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer over()
		unknown := func(tx store.Tx) error {
			_, err := store.Get[*api.Service](tx, "unknown")
			return err
		}
		if err := old.store.Update(moment, "", unknown); !errors.Is(err, context.DeadlineExceeded) || !old.leads() {
			t.Errorf("refusal without majority: %v, leads: %v", err, old.leads())
		}
		if err := old.store.Update(t.Context(), "", unknown); !errors.Is(err, store.ErrNotLeader) {
			t.Errorf("refusal of a deposed leader: %v", err)
		}
		g.mu.Lock()
		clear(g.cut)
		g.mu.Unlock()
		g.same(managers...)
		old = g.leader()
		g.mu.Lock()
		g.cut[old.id] = true
		g.mu.Unlock()
		err := old.store.Update(t.Context(), "lost", func(tx store.Tx) error { return tx.Create(service("a", "lost")) })
		var notLeader *store.NotLeaderError
		if !errors.As(err, &notLeader) || !notLeader.Uncertain {
			t.Errorf("write without majority: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := old.store.Barrier(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("linearizable read without majority: %v", err)
		}
		leader := g.leader()
		if leader == old {
			t.Fatal("the cut leader still leads")
		}
		storetest.Create(t, leader.store, service("b", "kept"))
		g.mu.Lock()
		clear(g.cut)
		g.mu.Unlock()
		g.same(managers...)
		if got := ids(storetest.List[*api.Service](t, old.store)); got != "b" {
			t.Errorf("services: %s", got)
		}
	})
}

func TestCluster_Membership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1 := g.first()
		if err := m1.store.RemoveMember(t.Context(), m1.store.Status().RaftID); !errors.Is(err, store.ErrQuorum) {
			t.Errorf("remove the last manager: %v", err)
		}
		m2, m3 := g.join("m2"), g.join("m3")
		if err := m1.store.TransferLeadership(t.Context()); err != nil {
			t.Fatal(err)
		}
		leader := g.leader()
		if leader == m1 {
			t.Error("leadership was not transferred")
		}
		// The leader can't remove itself, but hands over.
		err := leader.store.RemoveMember(t.Context(), leader.store.Status().RaftID)
		var notLeader *store.NotLeaderError
		if !errors.As(err, &notLeader) || notLeader.LeaderID == leader.id {
			t.Errorf("leader removes itself: %v", err)
		}
		removed := leader
		leader = g.leader()
		if err := leader.store.RemoveMember(t.Context(), removed.store.Status().RaftID); err != nil {
			t.Fatal(err)
		}
		if err := leader.store.RemoveMember(t.Context(), removed.store.Status().RaftID); err != nil {
			t.Errorf("remove twice: %v", err)
		}
		if err := <-removed.ended; !errors.Is(err, store.ErrRemoved) {
			t.Errorf("the removed manager ended with %v", err)
		}
		removed.ended <- nil
		// It comes back only under another raft id, with an empty disk.
		old := removed.store.Status().RaftID
		err = leader.store.Deliver(t.Context(), removed.id, &raftpb.Message{From: &old})
		if !errors.Is(err, store.ErrRemoved) {
			t.Errorf("message of a removed member: %v", err)
		}
		again := g.join(removed.id)
		others := []*manager{m1, m2, m3}
		for i, m := range others {
			if m == removed {
				others[i] = again
			}
		}
		g.same(others...)
		if n := len(leader.store.Members()); n != 3 {
			t.Errorf("%d members", n)
		}
	})
}

// With two of three managers gone for ever, the third one goes on alone, with everything that was acknowledged.
func TestForceNewCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1, m2, m3 := g.first(), g.join("m2"), g.join("m3")
		storetest.Create(t, g.leader().store, service("a", "web"))
		g.same(m1, m2, m3)
		gone := m1.store.Status().RaftID
		for _, m := range []*manager{m1, m2, m3} {
			m.stop()
		}
		if err := store.ForceNewCluster(m3.disk, "m3:2"); err != nil {
			t.Fatal(err)
		}
		m3.start()
		g.await(m3.leads)
		storetest.Create(t, m3.store, service("b", "web2"))
		if got := ids(storetest.List[*api.Service](t, m3.store)); got != "a b" {
			t.Errorf("services: %s", got)
		}
		if members := m3.store.Members(); len(members) != 1 || members[0].Address != "m3:2" {
			t.Errorf("members: %v", members)
		}
		if err := m3.store.Deliver(t.Context(), "m1", &raftpb.Message{From: &gone}); !errors.Is(err, store.ErrRemoved) {
			t.Errorf("a former member: %v", err)
		}
		m4 := g.add("m4")
		joined, err := m3.store.AddMember(t.Context(), "m4", "m4:1", store.Protocol)
		if err != nil {
			t.Fatal(err)
		}
		if err := store.Prepare(m4.disk, "c1", joined); err != nil {
			t.Fatal(err)
		}
		m4.start()
		g.await(func() bool { return len(storetest.List[*api.Service](t, m4.store)) == 2 })
	})
}

// A disk that fails stops the manager; what was acknowledged is there when it comes back.
func TestCluster_StopsWhenTheDiskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		g.interval = 20
		m := g.first()
		good := m.disk.FS
		m.stop()
		var failing atomic.Bool
		m.disk.FS = vfs.Inject(good, func(op vfs.Op) error {
			if failing.Load() && op.Kind == "Sync" {
				return errors.New("input/output error")
			}
			return nil
		})
		m.start()
		g.await(m.leads)
		failing.Store(true)
		acknowledged := 0
		for ; acknowledged < 100; acknowledged++ {
			id := fmt.Sprintf("t%03d", acknowledged)
			if update(t, m.store, func(tx store.Tx) error { return tx.Create(task(id, "s", 1, "")) }) != nil {
				break
			}
		}
		if err := <-m.ended; err == nil || !strings.Contains(err.Error(), "input/output error") {
			t.Errorf("the manager ended with %v", err)
		}
		m.ended <- nil
		m.disk.FS = good
		m.start()
		g.await(m.leads)
		if got := len(storetest.List[*api.Task](t, m.store)); got < acknowledged {
			t.Errorf("%d of %d acknowledged writes are there", got, acknowledged)
		}
	})
}
