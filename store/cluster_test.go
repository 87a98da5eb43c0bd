package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
	"github.com/skep-io/skep/store/vfs"
)

// group is a cluster in one process whose network is direct calls, which a test can cut.
type group struct {
	t        testing.TB
	interval uint64
	mu       sync.Mutex
	managers map[string]*manager
	cut      map[string]bool // node ids that nobody reaches
}

type manager struct {
	g      *group
	id     string
	disk   store.Disk
	store  *store.Store
	cancel context.CancelFunc
	ended  chan error // holds one
	ids    map[uint64]string
	out    chan []*raftpb.Message
}

func newGroup(t testing.TB) *group {
	return &group{t: t, managers: map[string]*manager{}, cut: map[string]bool{}}
}

func (g *group) add(id string) *manager {
	mem := vfs.NewMem()
	g.t.Cleanup(mem.Close)
	m := &manager{g: g, id: id, disk: store.Disk{FS: mem, Dir: "/raft", KEK: seal.NewKey(), Source: seal.SourceKeyFile}}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.managers[id] = m
	return m
}

// start opens the store and runs it until the test ends or stop.
func (m *manager) start() {
	m.g.t.Helper()
	m.out = make(chan []*raftpb.Message, 4096)
	s, err := store.Open(store.Config{Disk: m.disk, Transport: m, SnapshotInterval: m.g.interval})
	if err != nil {
		m.g.t.Fatalf("open %s: %v", m.id, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	m.g.mu.Lock()
	m.store, m.cancel, m.ended = s, cancel, make(chan error, 1)
	m.g.mu.Unlock()
	go func() { m.ended <- s.Run(ctx) }()
	m.g.t.Cleanup(m.stop)
}

func (m *manager) stop() {
	m.cancel()
	err := <-m.ended
	m.ended <- err
	if err != nil && !errors.Is(err, store.ErrRemoved) {
		m.g.t.Errorf("%s: %v", m.id, err)
	}
}

func (m *manager) SetMembers(members []*api.Member) {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	m.ids = map[uint64]string{}
	for _, member := range members {
		m.ids[member.RaftId] = member.NodeId
	}
}

func (m *manager) Send(messages []*raftpb.Message) {
	select {
	case m.out <- messages:
	default:
	}
}

func (m *manager) Run(ctx context.Context, sink store.Sink) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case messages := <-m.out:
			for _, message := range messages {
				ok := m.g.deliver(ctx, m, message, sink)
				if message.GetType() == raftpb.MsgSnap {
					sink.SnapshotSent(message.GetTo(), ok)
				}
			}
		}
	}
}

func (g *group) deliver(ctx context.Context, from *manager, message *raftpb.Message, sink store.Sink) bool {
	encoded, err := proto.Marshal(message)
	if err != nil {
		g.t.Error(err)
		return false
	}
	var received raftpb.Message
	if err := proto.Unmarshal(encoded, &received); err != nil {
		g.t.Error(err)
		return false
	}
	g.mu.Lock()
	id := from.ids[message.GetTo()]
	to := g.managers[id]
	cut := g.cut[id] || g.cut[from.id]
	var target *store.Store
	if to != nil {
		target = to.store
	}
	g.mu.Unlock()
	if target == nil || cut {
		return false
	}
	if err := target.Deliver(ctx, from.id, &received); errors.Is(err, store.ErrRemoved) {
		sink.Removed()
	}
	return true
}

// first makes a group of one.
func (g *group) first() *manager {
	g.t.Helper()
	m := g.add("m1")
	if err := store.Bootstrap(m.disk, "c1", &api.Member{RaftId: store.NewRaftID(), NodeId: "m1", Address: "m1:1"}); err != nil {
		g.t.Fatal(err)
	}
	m.start()
	g.await(m.leads)
	return m
}

// join adds a manager and waits until it votes.
func (g *group) join(id string) *manager {
	g.t.Helper()
	m := g.add(id)
	joined, err := g.leader().store.AddMember(g.t.Context(), id, id+":1")
	if err != nil {
		g.t.Fatal(err)
	}
	if err := store.Prepare(m.disk, "c1", joined); err != nil {
		g.t.Fatal(err)
	}
	m.start()
	g.await(func() bool {
		for _, member := range m.store.Members() {
			if member.NodeId == id && !member.Learner {
				return true
			}
		}
		return false
	})
	return m
}

func (m *manager) leads() bool { _, _, self := m.store.Leader(); return self }

func (g *group) leader() *manager {
	g.t.Helper()
	var found *manager
	g.await(func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, m := range g.managers {
			if m.store != nil && m.leads() && !g.cut[m.id] {
				found = m
			}
		}
		return found != nil
	})
	return found
}

// await waits, in the bubble's time, for a condition that the group reaches by itself.
func (g *group) await(condition func() bool) {
	g.t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for range 3000 {
		synctest.Wait()
		if condition() {
			return
		}
		<-ticker.C
	}
	g.t.Fatal("waited for a minute in vain")
}

// same waits until all managers have applied the same, and compares their states (I3).
func (g *group) same(managers ...*manager) {
	g.t.Helper()
	for _, m := range managers {
		if err := m.store.Barrier(g.t.Context()); err != nil {
			g.t.Fatalf("barrier on %s: %v", m.id, err)
		}
	}
	var want [32]byte
	var index store.Index
	for i, m := range managers {
		at, hash, err := m.store.StateHash(g.t.Context())
		if err != nil {
			g.t.Fatal(err)
		}
		if i == 0 {
			want, index = hash, at
		}
		if hash != want || at != index {
			g.t.Errorf("%s at %d differs from %s at %d", m.id, at, managers[0].id, index)
		}
	}
}

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

// A manager that lost its disk joins again with the same node id, and replaces its former self.
func TestCluster_ManagerThatLostItsDiskJoinsAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1, m2 := g.first(), g.join("m2")
		m3 := g.join("m3")
		storetest.Create(t, g.leader().store, service("a", "web"))
		m3.stop()
		m3 = g.join("m3")
		g.same(m1, m2, m3)
		if n := len(m1.store.Members()); n != 3 {
			t.Errorf("%d members", n)
		}
		if diff := cmp.Diff(m1.store.Members(), m3.store.Members(), protocmp.Transform()); diff != "" {
			t.Errorf("members differ:\n%s", diff)
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
		joined, err := m3.store.AddMember(t.Context(), "m4", "m4:1")
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
