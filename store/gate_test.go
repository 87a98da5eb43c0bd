package store_test

import (
	"errors"
	"testing"
	"testing/synctest"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

// A manager of the last release would stop at a kind that it does not know: until it is upgraded nobody writes one.
func TestCluster_NewKindsWaitForTheOldestManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1 := g.first()
		g.protocol = store.Protocol - 1
		m2 := g.join("m2")
		grant := &api.JoinGrant{Id: "g"}
		create := func(tx store.Tx) error { return tx.Create(grant) }
		var outdated *store.OutdatedError
		if err := update(t, m1.store, create); !errors.As(err, &outdated) || outdated.NodeID != "m2" || outdated.Needed != store.Protocol {
			t.Fatalf("with an older manager: %v", err)
		}
		storetest.Create(t, m1.store, service("a", "web")) // what it knows goes on
		g.same(m1, m2)

		status := m2.store.Status()
		if err := m1.store.UpdateMember(t.Context(), status.RaftID, "m2", "m2:1", store.Protocol); err != nil {
			t.Fatal(err)
		}
		if err := update(t, m1.store, create); err != nil {
			t.Fatalf("after its upgrade: %v", err)
		}
		g.same(m1, m2)
	})
}

// A manager that would stop at what the state holds is not admitted, nor is one that was downgraded. The state tells it after a
// restart, and after the last such object is gone: its deletion is in the log.
func TestCluster_RefusesAManagerThatIsTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1, m2 := g.first(), g.join("m2")
		storetest.Create(t, g.leader().store, &api.JoinGrant{Id: "g"})
		refused := func(when string) {
			t.Helper()
			leader := g.leader().store
			if _, err := leader.AddMember(t.Context(), "m3", "m3:1", store.Protocol-1); !errors.Is(err, store.ErrOutdated) {
				t.Errorf("%s: a new manager: %v", when, err)
			}
			follower := m1.store.Status()
			if m1.leads() {
				follower = m2.store.Status()
			}
			err := leader.UpdateMember(t.Context(), follower.RaftID, follower.NodeID, follower.NodeID+":1", store.Protocol-1)
			if !errors.Is(err, store.ErrOutdated) {
				t.Errorf("%s: a downgraded manager: %v", when, err)
			}
		}
		refused("with an object")
		err := update(t, g.leader().store, func(tx store.Tx) error {
			return tx.Delete(object.KindJoinGrant, "g")
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range []*manager{m1, m2} {
			m.stop()
			m.start()
		}
		refused("after a restart")
		if got := len(g.leader().store.Members()); got != 2 {
			t.Errorf("%d members", got)
		}
	})
}
