package catest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
)

// Registry is a ca.Registry in memory.
type Registry struct {
	mu       sync.Mutex
	cluster  ca.Cluster            // guarded by mu
	nodes    map[string]ca.NewNode // guarded by mu, by node ID; no role: removed
	requests map[string]string     // guarded by mu, node IDs by request
}

var _ ca.Registry = (*Registry)(nil)

// NewRegistry returns a registry of a new cluster: fresh root, fresh tokens.
func NewRegistry(t testing.TB) *Registry {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	return &Registry{
		cluster: ca.Cluster{
			ID: NewID(), Root: root, Worker: token.New(root.Digest()), Manager: token.New(root.Digest()), Life: ca.DefaultLife,
		},
		nodes:    map[string]ca.NewNode{},
		requests: map[string]string{},
	}
}

// Cluster implements ca.Registry.
func (r *Registry) Cluster(context.Context) (ca.Cluster, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cluster, nil
}

// NodeRole implements ca.Registry.
func (r *Registry) NodeRole(_ context.Context, nodeID string) (api.Role, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok := r.nodes[nodeID]
	if !ok {
		return 0, ca.ErrNodeNotFound
	}
	return n.Role, nil
}

// AddNode implements ca.Registry.
func (r *Registry) AddNode(_ context.Context, n ca.NewNode) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id, ok := r.requests[n.Request]; ok {
		return id, nil
	}
	id := NewID()
	r.nodes[id], r.requests[n.Request] = n, id
	return id, nil
}

// Node returns what was recorded of a node.
func (r *Registry) Node(id string) (ca.NewNode, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n, ok := r.nodes[id]
	return n, ok
}

// SetRole gives a node another role, or removes it if role is none.
func (r *Registry) SetRole(id string, role api.Role) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if role == api.Role_ROLE_UNSPECIFIED {
		delete(r.nodes, id)
		return
	}
	n := r.nodes[id]
	n.Role = role
	r.nodes[id] = n
}

// Configure changes the cluster.
func (r *Registry) Configure(change func(*ca.Cluster)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.cluster)
}

// NewID returns a fresh ID of the form that all have.
func NewID() string {
	return strings.Split(token.New(token.Digest{}).Reveal(), "-")[3] // 128 random bits in 25 characters, too
}

// RunRegistry is the contract of ca.Registry. Fresh returns an empty registry of a cluster, and how to remove a node from it.
func RunRegistry(t *testing.T, fresh func(t *testing.T) (r ca.Registry, remove func(nodeID string))) {
	worker := ca.NewNode{
		Request: "join-1", Role: api.Role_ROLE_WORKER, Availability: api.Availability_AVAILABILITY_DRAIN, Hostname: "n1",
	}
	manager := ca.NewNode{Request: "join-2", Role: api.Role_ROLE_MANAGER, Availability: api.Availability_AVAILABILITY_ACTIVE}
	add := func(t *testing.T, r ca.Registry, n ca.NewNode) string {
		t.Helper()
		id, err := r.AddNode(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	t.Run("the cluster is complete", func(t *testing.T) {
		r, _ := fresh(t)
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
		r, _ := fresh(t)
		if _, err := r.NodeRole(t.Context(), NewID()); !errors.Is(err, ca.ErrNodeNotFound) {
			t.Errorf("error %v, want %v", err, ca.ErrNodeNotFound)
		}
	})
	t.Run("nodes have the role they were added with", func(t *testing.T) {
		r, _ := fresh(t)
		for _, n := range []ca.NewNode{worker, manager} {
			id := add(t, r, n)
			if role, err := r.NodeRole(t.Context(), id); err != nil || role != n.Role {
				t.Errorf("role %v, %v; want %v", role, err, n.Role)
			}
		}
	})
	t.Run("a request that is repeated is one node", func(t *testing.T) {
		r, _ := fresh(t)
		if a, b := add(t, r, worker), add(t, r, worker); a != b || len(a) != 25 {
			t.Errorf("IDs %q and %q", a, b)
		}
		if a, b := add(t, r, worker), add(t, r, manager); a == b {
			t.Error("two requests, one ID")
		}
	})
	t.Run("a removed node stays away", func(t *testing.T) {
		r, remove := fresh(t)
		id := add(t, r, worker)
		remove(id)
		if _, err := r.NodeRole(t.Context(), id); !errors.Is(err, ca.ErrNodeNotFound) {
			t.Errorf("error %v, want %v", err, ca.ErrNodeNotFound)
		}
	})
}
