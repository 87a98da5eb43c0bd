package catest

import (
	"errors"
	"net/netip"
	"sync"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
)

// Subject is an empty registry of a cluster, for RunRegistry.
type Subject struct {
	ca.Registry
	// Remove removes a node.
	Remove func(nodeID string)
	// Grant makes a join grant for an hour.
	Grant func(*api.JoinGrantSpec) token.Token
}

// RunRegistry is the contract of ca.Registry.
func RunRegistry(t *testing.T, fresh func(t *testing.T) Subject) {
	worker := ca.NewNode{
		Request: "join-1", Role: api.Role_ROLE_WORKER, Availability: api.Availability_AVAILABILITY_DRAIN, Hostname: "n1",
	}
	manager := ca.NewNode{Request: "join-2", Role: api.Role_ROLE_MANAGER, Availability: api.Availability_AVAILABILITY_ACTIVE}
	t.Run("the cluster is complete", func(t *testing.T) {
		r := fresh(t)
		c, err := r.Cluster(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(c.ID) != 25 || c.Root == nil || c.Worker.IsZero() || c.Manager.IsZero() || ca.CheckLife(c.Life) != nil {
			t.Errorf("something is missing in cluster %s", c.ID)
		}
		if c.Worker.Digest() != c.Root.Digest() || c.Manager.Digest() != c.Root.Digest() {
			t.Error("tokens are for another root")
		}
	})
	t.Run("an unknown node has no role", func(t *testing.T) {
		r := fresh(t)
		if _, err := r.NodeRole(t.Context(), NewID()); !errors.Is(err, ca.ErrNodeNotFound) {
			t.Errorf("error %v, want %v", err, ca.ErrNodeNotFound)
		}
	})
	t.Run("nodes have the role they were added with", func(t *testing.T) {
		r := fresh(t)
		for _, n := range []ca.NewNode{worker, manager} {
			id := add(t, r, n)
			if role, err := r.NodeRole(t.Context(), id); err != nil || role != n.Role {
				t.Errorf("role %v, %v; want %v", role, err, n.Role)
			}
		}
	})
	t.Run("a request that is repeated is one node", func(t *testing.T) {
		r := fresh(t)
		if a, b := add(t, r, worker), add(t, r, worker); a != b || len(a) != 25 {
			t.Errorf("IDs %q and %q", a, b)
		}
		if a, b := add(t, r, worker), add(t, r, manager); a == b {
			t.Error("two requests, one ID")
		}
	})
	t.Run("a removed node stays away", func(t *testing.T) {
		r := fresh(t)
		id := add(t, r, worker)
		r.Remove(id)
		if _, err := r.NodeRole(t.Context(), id); !errors.Is(err, ca.ErrNodeNotFound) {
			t.Errorf("error %v, want %v", err, ca.ErrNodeNotFound)
		}
	})
	runGrants(t, fresh)
}

func add(t *testing.T, r ca.Registry, n ca.NewNode) string {
	t.Helper()
	id, err := r.AddNode(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// runGrants is the part of the contract that concerns join grants. What a grant allows, ClaimGrant decides and its tests say.
func runGrants(t *testing.T, fresh func(t *testing.T) Subject) {
	applicant := func(tok token.Token, key string) ca.NewNode {
		return ca.NewNode{
			Request: "join-" + key, Role: api.Role_ROLE_WORKER, Grant: tok.SecretHash().GrantID(), KeyFingerprint: key, CanWait: true,
			Address: netip.MustParseAddr("192.0.2.1"),
		}
	}
	t.Run("a grant has the role that it was made with, an unknown one has none", func(t *testing.T) {
		r := fresh(t)
		tok := r.Grant(&api.JoinGrantSpec{Role: api.Role_ROLE_MANAGER, MaxUses: 1})
		if role, err := r.GrantRole(t.Context(), tok.SecretHash()); err != nil || role != api.Role_ROLE_MANAGER {
			t.Errorf("role %v, %v", role, err)
		}
		other := token.New(tok.Digest())
		if _, err := r.GrantRole(t.Context(), other.SecretHash()); !errors.Is(err, token.ErrWrongSecret) {
			t.Errorf("another secret: %v", err)
		}
		if _, err := r.AddNode(t.Context(), applicant(other, "k")); !errors.Is(err, token.ErrWrongSecret) {
			t.Errorf("a node by another secret: %v", err)
		}
	})
	t.Run("of many at once as many get in as may", func(t *testing.T) {
		r := fresh(t)
		tok := r.Grant(&api.JoinGrantSpec{Role: api.Role_ROLE_WORKER, MaxUses: 3})
		var wg sync.WaitGroup
		errs := make([]error, 20)
		for i := range errs {
			wg.Go(func() { _, errs[i] = r.AddNode(t.Context(), applicant(tok, string(rune('a'+i)))) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, ca.ErrGrantUsed):
				t.Error(err)
			}
		}
		if won != 3 {
			t.Errorf("%d nodes by a grant for 3", won)
		}
	})
	t.Run("the same key is the same node", func(t *testing.T) {
		r := fresh(t)
		tok := r.Grant(&api.JoinGrantSpec{Role: api.Role_ROLE_WORKER, MaxUses: 1})
		if a, b := add(t, r, applicant(tok, "k")), add(t, r, applicant(tok, "k")); a != b {
			t.Errorf("nodes %s and %s", a, b)
		}
	})
	t.Run("a node that waits for approval has no role", func(t *testing.T) {
		r := fresh(t)
		tok := r.Grant(&api.JoinGrantSpec{Role: api.Role_ROLE_WORKER, MaxUses: 1, RequireApproval: true})
		if _, err := r.NodeRole(t.Context(), add(t, r, applicant(tok, "k"))); !errors.Is(err, ca.ErrPending) {
			t.Errorf("error %v, want %v", err, ca.ErrPending)
		}
	})
}
