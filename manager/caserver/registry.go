package caserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// errNoCluster is returned while this manager's store has not got the cluster yet.
var errNoCluster = errors.New("this manager has not caught up with the swarm yet: try again")

// errNonce is returned for a nonce that this leader did not give out, or that was used.
var errNonce = errors.New("the nonce does not count any more: begin again")

// registry is a ca.Registry in the store.
type registry struct {
	store *store.Store
	// turn holds a token while nobody on this manager claims a grant. Claims of one grant would only refuse each other in the store,
	// which decides between managers.
	turn chan struct{}
	// identity is who asks an external CA, or nil.
	identity *ca.Identity
}

var _ ca.Registry = registry{}

func newRegistry(s *store.Store) registry {
	r := registry{store: s, turn: make(chan struct{}, 1)}
	r.turn <- struct{}{}
	return r
}

// Cluster implements ca.Registry.
func (r registry) Cluster(context.Context) (ca.Cluster, error) {
	c, err := r.cluster()
	if err != nil {
		return ca.Cluster{}, err
	}
	root, rootErr := ca.OpenRoot(c.GetRootCa(), r.identity)
	next, nextErr := r.next(c.GetRootCa())
	if err := errors.Join(rootErr, nextErr); err != nil {
		return ca.Cluster{}, fmt.Errorf("root CA in the store: %w", err)
	}
	worker, workerErr := token.Parse(c.GetJoinTokens().GetWorker())
	manager, managerErr := token.Parse(c.GetJoinTokens().GetManager())
	if err := errors.Join(workerErr, managerErr); err != nil {
		return ca.Cluster{}, fmt.Errorf("join tokens in the store: %w", err)
	}
	return ca.Cluster{
		ID: c.GetId(), Root: root, Next: next, Worker: worker, Manager: manager, Life: c.GetSpec().GetCertExpiry().AsDuration(),
	}, nil
}

// next returns the root that signs during a rotation, or nil.
func (r registry) next(stored *api.RootCA) (*ca.Root, error) {
	if stored.GetRotation() == nil {
		return nil, nil //nolint:nilnil // as Cluster.Next
	}
	return ca.OpenIssuer(stored, r.identity)
}

// cluster returns the one Cluster object.
func (r registry) cluster() (*api.Cluster, error) {
	var cluster *api.Cluster
	err := r.store.View(func(tx store.ReadTx) (err error) {
		cluster, err = store.TheCluster(tx)
		return err
	})
	if err == nil && cluster == nil {
		err = errNoCluster
	}
	return cluster, err
}

// NodeRole implements ca.Registry.
func (r registry) NodeRole(_ context.Context, nodeID string) (api.Role, error) {
	var n *api.Node
	err := r.store.View(func(tx store.ReadTx) (err error) {
		n, err = store.Get[*api.Node](tx, nodeID)
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return 0, ca.ErrNodeNotFound
	case n.GetApproval().GetState() == api.ApprovalState_APPROVAL_STATE_PENDING:
		return 0, ca.ErrPending
	}
	if n.GetCompromise() != nil {
		return 0, ca.ErrNodeNotFound // for others, it is gone
	}
	return n.GetRole(), err
}

// GrantRole implements ca.Registry.
func (r registry) GrantRole(_ context.Context, hash token.SecretHash) (api.Role, error) {
	var g *api.JoinGrant
	err := r.store.View(func(tx store.ReadTx) (err error) {
		g, err = store.Get[*api.JoinGrant](tx, hash.GrantID())
		return err
	})
	if errors.Is(err, store.ErrNotFound) || err == nil && !hash.Equal(g.GetSecretHash()) {
		return 0, token.ErrWrongSecret
	}
	return g.GetSpec().GetRole(), err
}

// AddNode implements ca.Registry.
func (r registry) AddNode(ctx context.Context, n ca.NewNode) (string, error) {
	if n.Grant != "" {
		return r.claim(ctx, n)
	}
	id := object.NewID()
	err := r.store.Update(ctx, n.Request, func(tx store.Tx) error { return tx.Create(newNode(id, n)) })
	var earlier *store.DuplicateError
	if errors.As(err, &earlier) {
		for _, ref := range earlier.Created {
			if ref.Kind == object.KindNode {
				return ref.ID, nil
			}
		}
	}
	return id, err
}

// claim adds a node by a join grant: the use and the node are one transaction, which is refused when the grant has changed since it
// was read. So of two who race for the last use, on whatever managers, one wins (S3).
func (r registry) claim(ctx context.Context, n ca.NewNode) (string, error) {
	select {
	case <-r.turn:
		defer func() { r.turn <- struct{}{} }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	var claim ca.Claim
	freshID := object.NewID()
	err := r.store.Update(ctx, "", func(tx store.Tx) error {
		g, err := store.Get[*api.JoinGrant](tx, n.Grant)
		if errors.Is(err, store.ErrNotFound) {
			return token.ErrWrongSecret // revoked meanwhile
		}
		if err != nil {
			return err
		}
		if claim, err = ca.ClaimGrant(g, time.Now(), n, freshID); err != nil || claim.Grant == nil {
			return err
		}
		if err := tx.Update(claim.Grant); err != nil {
			return err
		}
		return tx.Create(grantedNode(claim.NodeID, n, g))
	})
	return claim.NodeID, err
}

// grantedNode is a new node with what its grant gives it.
func grantedNode(id string, n ca.NewNode, g *api.JoinGrant) *api.Node {
	node := newNode(id, n)
	node.Spec.Annotations = &api.Annotations{Name: g.GetSpec().GetNodeName(), Labels: maps.Clone(g.GetSpec().GetNodeLabels())}
	if n.Address.IsValid() {
		node.Status.Address = n.Address.String()
	}
	if g.GetSpec().GetRequireApproval() {
		node.Approval = &api.Approval{
			State: api.ApprovalState_APPROVAL_STATE_PENDING, KeyFingerprint: n.KeyFingerprint, GrantId: g.GetId(),
		}
	}
	return node
}

func newNode(id string, n ca.NewNode) *api.Node {
	return &api.Node{
		Id:          id,
		Spec:        &api.NodeSpec{DesiredRole: n.Role, Availability: n.Availability},
		Role:        n.Role,
		Description: &api.NodeDescription{Hostname: n.Hostname},
		Status:      &api.NodeStatus{State: api.NodeState_NODE_STATE_UNKNOWN, ChangedAt: timestamppb.New(time.Now())},
	}
}
