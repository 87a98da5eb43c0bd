package authz

import (
	"context"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
)

// storeNodes answers from this manager's store.
type storeNodes struct{ store *store.Store }

// NewNodes returns the Nodes of a store.
func NewNodes(s *store.Store) Nodes { return storeNodes{s} }

// Node implements Nodes. A node that waits for approval is none: it has no certificate, and if it had one, it would have no rights.
func (n storeNodes) Node(id string) (Record, bool) {
	var found *api.Node
	err := n.store.View(func(tx store.ReadTx) (err error) {
		found, err = store.Get[*api.Node](tx, id)
		return err
	})
	if err != nil || found.GetApproval().GetState() == api.ApprovalState_APPROVAL_STATE_PENDING {
		return Record{}, false
	}
	return Record{
		Role: found.GetRole(), ChangedAt: found.GetMeta().GetUpdatedAt().AsTime(), Revoked: found.GetCompromise() != nil,
	}, true
}

// CatchUp implements Nodes.
func (n storeNodes) CatchUp(ctx context.Context) error { return n.store.Barrier(ctx) }
