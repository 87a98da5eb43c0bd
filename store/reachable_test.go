package store_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// TestCluster_AMemberCanBeRemovedAtEveryMoment tries at the moments of ticks, some of which check the quorum: just after that,
// members that are well must not look as if they were not.
func TestCluster_AMemberCanBeRemovedAtEveryMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1 := g.first()
		g.join("m2")
		g.join("m3")
		for i := range 40 {
			id := fmt.Sprint("x", i)
			joined := g.join(id)
			const tick, election = 100 * time.Millisecond, 10 // ticks
			time.Sleep(time.Until(time.Now().Truncate(tick).Add(time.Duration(1+i%election) * tick)))
			for _, member := range m1.store.Status().Members {
				if member.Member.GetNodeId() != id {
					continue
				}
				if err := m1.store.RemoveMember(t.Context(), member.Member.GetRaftId()); err != nil {
					t.Errorf("try %d: %v", i, err)
				}
			}
			joined.stop()
		}
	})
}

// TestSettle_EndsThoughOneIsDead waits for an election time-out, and no longer.
func TestSettle_EndsThoughOneIsDead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1 := g.first()
		g.join("m2")
		g.join("m3")
		m1.stop()
		g.mu.Lock()
		m1.store = nil
		g.mu.Unlock()
		leader := g.leader()
		began := time.Now()
		if err := leader.store.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 1200*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}
