package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
	"github.com/skep-io/skep/store/vfs"
)

// stall is a disk that can stop to answer whoever writes the log.
type stall struct {
	mu   sync.Mutex
	gate chan struct{} // nil while the disk works
}

// stallable gives a manager's disk, before it starts, a stall.
func stallable(m *manager) *stall {
	s := new(stall)
	m.disk.FS = vfs.Inject(m.disk.FS, func(op vfs.Op) error {
		// Snapshots are written beside the log: what fails to come is their place in it, when older files are removed.
		if op.Kind == "Remove" || op.Kind == "Sync" && !strings.Contains(op.Path, "snap") {
			s.wait()
		}
		return nil
	})
	return s
}

func (s *stall) wait() {
	s.mu.Lock()
	gate := s.gate
	s.mu.Unlock()
	if gate != nil {
		<-gate
	}
}

func (s *stall) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate = make(chan struct{})
}

// end may be called twice.
func (s *stall) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gate != nil {
		close(s.gate)
		s.gate = nil
	}
}

// stalls makes the disk of a manager stall, and returns once a write did not come through.
func (g *group) stalls(s *stall, leader *manager) {
	g.t.Helper()
	g.t.Cleanup(s.end)
	s.begin()
	for i := range 1000 {
		ctx, cancel := context.WithTimeout(g.t.Context(), 500*time.Millisecond)
		err := leader.store.Update(ctx, "", func(tx store.Tx) error {
			return tx.Create(task(fmt.Sprintf("stall%d-%d", time.Now().UnixNano(), i), "s", 1, ""))
		})
		cancel()
		if err != nil {
			return
		}
	}
	g.t.Fatal("the disk does not stall")
}

// firstStallable makes a group of one whose disk can stall.
func (g *group) firstStallable() (*manager, *stall) {
	g.t.Helper()
	m := g.first()
	m.stop()
	s := stallable(m)
	m.start()
	g.await(m.leads)
	return m, s
}

// A leader whose disk stalls hands over after 5 s, and is a follower like any other when its disk is back.
func TestWedge_LeaderHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		g.interval = 20
		m1, disk := g.firstStallable()
		m2, m3 := g.join("m2"), g.join("m3")
		began := time.Now()
		g.stalls(disk, m1)
		g.await(func() bool { return m2.leads() || m3.leads() })
		if took := time.Since(began); took < 5*time.Second || took > 8*time.Second {
			t.Errorf("another manager leads after %v", took)
		}
		storetest.Create(t, g.leader().store, service("a", "web"))
		if m1.leads() {
			t.Error("the manager whose disk stalls leads again")
		}
		disk.end()
		g.same(m1, m2, m3)
	})
}

// A disk that is slow for less than 5 s costs no leadership.
func TestWedge_ShortStallsAreEndured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		g.interval = 20
		m1, disk := g.firstStallable()
		m2, m3 := g.join("m2"), g.join("m3")
		term := m1.store.Status().Term
		for range 3 {
			g.stalls(disk, m1)
			time.Sleep(4 * time.Second)
			disk.end()
			g.same(m1, m2, m3)
		}
		if status := m1.store.Status(); !status.Self || status.Term != term {
			t.Errorf("leadership moved: %+v", status.Leadership)
		}
	})
}

// A manager whose disk stalls does not stand for election, not even when it is asked to: nobody leads in vain.
func TestWedge_StalledManagerDoesNotCampaign(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		g.interval = 20
		m1 := g.first()
		m2 := g.add("m2")
		disk := stallable(m2)
		g.joinAs(m2)
		g.stalls(disk, m1)
		time.Sleep(6 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if err := m1.store.TransferLeadership(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("transfer to a manager whose disk stalls: %v", err)
		}
		m1.stop()
		time.Sleep(20 * time.Second)
		if n := m2.sent(raftpb.MsgPreVote) + m2.sent(raftpb.MsgVote); n > 0 {
			t.Errorf("it asked for %d votes", n)
		}
		disk.end()
		m1.start()
		g.same(m1, m2)
	})
}
