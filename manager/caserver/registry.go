package caserver

import (
	"context"
	"errors"
	"fmt"
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

// registry is a ca.Registry in the store.
type registry struct{ store *store.Store }

var _ ca.Registry = registry{}

// Cluster implements ca.Registry.
func (r registry) Cluster(context.Context) (ca.Cluster, error) {
	c, err := r.cluster()
	if err != nil {
		return ca.Cluster{}, err
	}
	root, err := ca.ParseRoot(c.GetRootCa().GetCertificate(), c.GetRootCa().GetKey())
	if err != nil {
		return ca.Cluster{}, fmt.Errorf("root CA in the store: %w", err)
	}
	worker, workerErr := token.Parse(c.GetJoinTokens().GetWorker())
	manager, managerErr := token.Parse(c.GetJoinTokens().GetManager())
	if err := errors.Join(workerErr, managerErr); err != nil {
		return ca.Cluster{}, fmt.Errorf("join tokens in the store: %w", err)
	}
	return ca.Cluster{
		ID: c.GetId(), Root: root, Worker: worker, Manager: manager, Life: c.GetSpec().GetCertExpiry().AsDuration(),
	}, nil
}

// cluster returns the one Cluster object.
func (r registry) cluster() (*api.Cluster, error) {
	var all []*api.Cluster
	err := r.store.View(func(tx store.ReadTx) (err error) {
		all, err = store.List[*api.Cluster](tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errNoCluster
	}
	return all[0], nil
}

// NodeRole implements ca.Registry.
func (r registry) NodeRole(_ context.Context, nodeID string) (api.Role, error) {
	var n *api.Node
	err := r.store.View(func(tx store.ReadTx) (err error) {
		n, err = store.Get[*api.Node](tx, nodeID)
		return err
	})
	if errors.Is(err, store.ErrNotFound) {
		return 0, ca.ErrNodeNotFound
	}
	if n.GetCompromisedAt() != nil {
		return 0, ca.ErrNodeNotFound // for others, it is gone
	}
	return n.GetRole(), err
}

// AddNode implements ca.Registry.
func (r registry) AddNode(ctx context.Context, n ca.NewNode) (string, error) {
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

func newNode(id string, n ca.NewNode) *api.Node {
	return &api.Node{
		Id:          id,
		Spec:        &api.NodeSpec{DesiredRole: n.Role, Availability: n.Availability},
		Role:        n.Role,
		Description: &api.NodeDescription{Hostname: n.Hostname},
		Status:      &api.NodeStatus{State: api.NodeState_NODE_STATE_UNKNOWN, ChangedAt: timestamppb.New(time.Now())},
	}
}
