package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// group is a cluster in one process whose network is direct calls, which a test can cut.
type group struct {
	t        testing.TB
	interval uint64
	// dir is where the managers keep their disks, as real files; empty is in memory.
	dir      string
	protocol uint32 // of managers that join
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
	counts map[raftpb.MessageType]int // guarded by g.mu; of messages to send
}

// sent returns how many messages of a type the manager wanted to send.
func (m *manager) sent(kind raftpb.MessageType) int {
	m.g.mu.Lock()
	defer m.g.mu.Unlock()
	return m.counts[kind]
}

func newGroup(t testing.TB) *group {
	return &group{t: t, protocol: store.Protocol, managers: map[string]*manager{}, cut: map[string]bool{}}
}

func (g *group) add(id string) *manager {
	g.t.Helper()
	m := &manager{g: g, id: id, counts: map[raftpb.MessageType]int{}, disk: g.disk(id)}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.managers[id] = m
	return m
}

// disk returns the disk of a manager: an empty one in memory, or what dir holds of it.
func (g *group) disk(id string) store.Disk {
	g.t.Helper()
	if g.dir != "" {
		return realDisk(g.t, filepath.Join(g.dir, id))
	}
	mem := vfs.NewMem()
	g.t.Cleanup(mem.Close)
	return store.Disk{FS: mem, Dir: "/raft", KEK: seal.NewKey(), Source: seal.SourceKeyFile}
}

// realDisk returns the store in dir, which is as a daemon has it, with the key in a file beside it.
func realDisk(t testing.TB, dir string) store.Disk {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	kek, err := seal.KeyFile(vfs.OS{}, filepath.Join(dir, "store.key"))
	if err != nil {
		t.Fatal(err)
	}
	return store.Disk{Dir: filepath.Join(dir, "raft"), KEK: kek, Source: seal.SourceKeyFile}
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
	m.g.mu.Lock()
	for _, message := range messages {
		m.counts[message.GetType()]++
	}
	m.g.mu.Unlock()
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
	received := proto.CloneOf(message)
	if message.GetType() == raftpb.MsgSnap {
		data, err := sink.Snapshot(message.GetSnapshot().GetMetadata())
		if err != nil {
			return false
		}
		received.Snapshot.Data = data
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
	if err := target.Deliver(ctx, from.id, received); errors.Is(err, store.ErrRemoved) {
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
	g.joinAs(m)
	return m
}

// joinAs makes a manager with an empty disk a member, and waits until it votes.
func (g *group) joinAs(m *manager) {
	g.t.Helper()
	id := m.id
	joined, err := g.leader().store.AddMember(g.t.Context(), id, id+":1", g.protocol)
	if err != nil {
		g.t.Fatal(err)
	}
	if err := store.Prepare(m.disk, "c1", joined); err != nil {
		g.t.Fatal(err)
	}
	m.start()
	g.awaitVoter(m)
}

// awaitVoter waits until m votes, as far as it knows itself.
func (g *group) awaitVoter(m *manager) {
	g.t.Helper()
	g.await(func() bool {
		for _, member := range m.store.Members() {
			if member.RaftId == m.store.Status().RaftID && !member.Learner {
				return true
			}
		}
		return false
	})
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
