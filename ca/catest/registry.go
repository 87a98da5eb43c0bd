package catest

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
)

// Registry is a ca.Registry in memory.
type Registry struct {
	mu       sync.Mutex
	cluster  ca.Cluster                // guarded by mu
	nodes    map[string]ca.NewNode     // guarded by mu, by node ID; no role: removed
	waiting  map[string]bool           // guarded by mu, IDs of nodes that wait for approval
	requests map[string]string         // guarded by mu, node IDs by request
	grants   map[string]*api.JoinGrant // guarded by mu, by ID
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
		waiting:  map[string]bool{},
		requests: map[string]string{},
		grants:   map[string]*api.JoinGrant{},
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
	switch {
	case !ok:
		return 0, ca.ErrNodeNotFound
	case r.waiting[nodeID]:
		return 0, ca.ErrPending
	}
	return n.Role, nil
}

// GrantRole implements ca.Registry.
func (r *Registry) GrantRole(_ context.Context, hash token.SecretHash) (api.Role, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	g := r.grants[hash.GrantID()]
	if !hash.Equal(g.GetSecretHash()) {
		return 0, token.ErrWrongSecret
	}
	return g.GetSpec().GetRole(), nil
}

// AddNode implements ca.Registry.
func (r *Registry) AddNode(_ context.Context, n ca.NewNode) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n.Grant != "" {
		return r.claim(n)
	}
	if id, ok := r.requests[n.Request]; ok {
		return id, nil
	}
	id := NewID()
	r.nodes[id], r.requests[n.Request] = n, id
	return id, nil
}

// claim adds a node by a grant. The caller holds mu.
func (r *Registry) claim(n ca.NewNode) (string, error) {
	g := r.grants[n.Grant]
	if g == nil {
		return "", token.ErrWrongSecret
	}
	claim, err := ca.ClaimGrant(g, time.Now(), n, NewID())
	if err == nil && claim.Grant != nil {
		r.grants[n.Grant], r.nodes[claim.NodeID] = claim.Grant, n
		r.waiting[claim.NodeID] = g.GetSpec().GetRequireApproval()
	}
	return claim.NodeID, err
}

// AddGrant makes a join grant for an hour, and returns its token.
func (r *Registry) AddGrant(spec *api.JoinGrantSpec) token.Token {
	r.mu.Lock()
	defer r.mu.Unlock()
	t, g := NewGrant(r.cluster.Root.Digest(), spec)
	r.grants[g.GetId()] = g
	return t
}

// NewGrant returns a join grant for an hour, and its token.
func NewGrant(d token.Digest, spec *api.JoinGrantSpec) (token.Token, *api.JoinGrant) {
	t := token.New(d)
	hash := t.SecretHash()
	return t, &api.JoinGrant{Id: hash.GrantID(), Spec: spec, SecretHash: hash[:], ExpiresAt: timestamppb.New(time.Now().Add(time.Hour))}
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
