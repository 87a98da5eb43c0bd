package rolemanager_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/rolemanager"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// group is a Raft group in memory.
type group struct {
	mu     sync.Mutex
	status store.Status
	// refuse makes the next removals fail.
	refuse    int
	transfers int
	store     *store.Store
	t         *testing.T
}

func (g *group) Status() store.Status {
	g.mu.Lock()
	defer g.mu.Unlock()
	status := g.status
	status.Members = slices.Clone(status.Members)
	return status
}

func (g *group) RemoveMember(_ context.Context, raftID uint64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.refuse > 0 {
		g.refuse--
		return errors.New("the group is busy")
	}
	g.status.Members = slices.DeleteFunc(g.status.Members, func(m store.MemberStatus) bool {
		if m.Member.GetRaftId() != raftID {
			return false
		}
		node := storetest.Get[*api.Node](g.t, g.store, m.Member.GetNodeId())
		if node.GetRole() != api.Role_ROLE_MANAGER {
			g.t.Errorf("R1: node %s is a worker while it is a member", node.GetId())
		}
		return true
	})
	return nil
}

func (g *group) TransferLeadership(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.transfers++
	return nil
}

// run starts a role manager on three managers and a worker; it stops when the test ends.
func run(t *testing.T) (*store.Store, *group) {
	t.Helper()
	s := storetest.New(t)
	g := &group{store: s, t: t, status: store.Status{NodeID: "m1"}}
	storetest.Create(t, s, &api.Cluster{Id: "cluster", Spec: &api.ClusterSpec{}})
	for _, id := range []string{"m1", "m2", "m3"} {
		storetest.Create(t, s, node(id, api.Role_ROLE_MANAGER))
		g.status.Members = append(g.status.Members, store.MemberStatus{
			Member: &api.Member{RaftId: raftID(id), NodeId: id}, Leader: id == "m1", Reachable: true,
		})
	}
	storetest.Create(t, s, node("w1", api.Role_ROLE_WORKER))
	m, err := rolemanager.New(rolemanager.Config{Store: s, Group: g, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return s, g
}

func node(id string, role api.Role) *api.Node {
	return &api.Node{Id: id, Role: role, Spec: &api.NodeSpec{DesiredRole: role}}
}

func want(t *testing.T, s *store.Store, id string, role api.Role) {
	t.Helper()
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		old, err := store.Get[*api.Node](tx, id)
		if err != nil {
			return err
		}
		n := proto.CloneOf(old)
		n.Spec.DesiredRole = role
		return tx.Update(n)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkRole(t *testing.T, s *store.Store, id string, role api.Role) {
	t.Helper()
	if got := storetest.Get[*api.Node](t, s, id).GetRole(); got != role {
		t.Errorf("node %s has role %v, want %v", id, got, role)
	}
}

func TestRun_PromotesAndDemotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := run(t)
		want(t, s, "w1", api.Role_ROLE_MANAGER)
		want(t, s, "m2", api.Role_ROLE_WORKER)
		synctest.Wait()
		checkRole(t, s, "w1", api.Role_ROLE_MANAGER)
		checkRole(t, s, "m2", api.Role_ROLE_WORKER)
		if n := len(g.Status().Members); n != 2 {
			t.Errorf("%d members, want 2", n)
		}
		cluster := func() *api.Cluster { return storetest.List[*api.Cluster](t, s)[0] }
		if r := cluster().GetRevocations(); len(r) != 1 || r[0].GetNodeId() != "m2" || r[0].GetRole() != api.Role_ROLE_WORKER {
			t.Errorf("revoked: %v", r)
		}
		want(t, s, "m2", api.Role_ROLE_MANAGER)
		synctest.Wait()
		if r := cluster().GetRevocations(); len(r) != 0 {
			t.Errorf("revoked after a promotion: %v", r)
		}
	})
}

func TestRun_TriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := run(t)
		g.mu.Lock()
		g.refuse = 3
		g.mu.Unlock()
		want(t, s, "m2", api.Role_ROLE_WORKER)
		synctest.Wait()
		checkRole(t, s, "m2", api.Role_ROLE_MANAGER)
		time.Sleep(10 * time.Second)
		checkRole(t, s, "m2", api.Role_ROLE_WORKER)
	})
}

func TestRun_LeaderTransfersFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, g := run(t)
		want(t, s, "m1", api.Role_ROLE_WORKER)
		synctest.Wait()
		g.mu.Lock()
		if g.transfers != 1 || len(g.status.Members) != 3 {
			t.Errorf("%d transfers, %d members, want 1 and 3", g.transfers, len(g.status.Members))
		}
		g.status.NodeID = "m2" // as if this were the next leader
		g.mu.Unlock()
		time.Sleep(2 * time.Second)
		checkRole(t, s, "m1", api.Role_ROLE_WORKER)
	})
}
