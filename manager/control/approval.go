package control

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// waits reports whether a person has to let the node in.
func waits(node *api.Node) bool {
	return node.GetApproval().GetState() == api.ApprovalState_APPROVAL_STATE_PENDING
}

// refuseWaiting returns a fault for a node that waits: nothing can be done with it but to decide.
func refuseWaiting(node *api.Node) error {
	if !waits(node) {
		return nil
	}
	return fault.New(fault.Precondition, "node %s waits for approval: `skep node approve %s` lets it in, `skep node deny %s` removes it",
		node.GetId(), node.GetId(), node.GetId())
}

// ApproveNode lets a node in that waits. It does nothing when somebody did so before.
func (s *Server) ApproveNode(ctx context.Context, request *api.ApproveNodeRequest) (*api.ApproveNodeResponse, error) {
	id, err := requestID(ctx, "ApproveNode")
	if err != nil {
		return nil, err
	}
	response := new(api.ApproveNodeResponse)
	err = s.update(ctx, id, func(tx store.Tx) error {
		old, err := resolve[*api.Node](tx, request.GetNode())
		if err != nil {
			return err
		}
		response.Node = old
		approval := old.GetApproval()
		if approval == nil {
			return fault.New(fault.Precondition, "node %s did not wait for approval: it joined by a token that needs none", old.GetId())
		}
		if wanted := request.GetKeyFingerprint(); wanted != "" && wanted != approval.GetKeyFingerprint() {
			return fault.New(fault.Precondition, "the key of node %s is another one: %s: `skep node deny %s` if you don't know the machine",
				old.GetId(), approval.GetKeyFingerprint(), old.GetId())
		}
		if !waits(old) {
			return nil
		}
		node := proto.CloneOf(old)
		node.Approval.State = api.ApprovalState_APPROVAL_STATE_APPROVED
		response.Node = proto.CloneOf(node)
		return tx.Update(node)
	})
	if err != nil || response.GetNode() != nil {
		return response, err
	}
	response.Node, err = current[*api.Node](s, request.GetNode()) // a repetition
	return response, err
}

// DenyNode removes a node that waits. Its grant remembers that, so that the machine is told.
func (s *Server) DenyNode(ctx context.Context, request *api.DenyNodeRequest) (*api.DenyNodeResponse, error) {
	id, err := requestID(ctx, "DenyNode")
	if err != nil {
		return nil, err
	}
	response := &api.DenyNodeResponse{Node: &api.Node{Id: request.GetNode()}}
	return response, s.update(ctx, id, func(tx store.Tx) error {
		node, err := resolve[*api.Node](tx, request.GetNode())
		if err != nil {
			return err
		}
		if !waits(node) {
			return fault.New(fault.Precondition, "node %s is in the swarm already: `skep node rm --force %s` removes it", node.GetId(), node.GetId())
		}
		response.Node = node
		if err := denyUse(tx, node); err != nil {
			return err
		}
		return tx.Delete(object.KindNode, node.GetId())
	})
}

// denyUse notes in a node's grant that it was denied.
func denyUse(tx store.Tx, node *api.Node) error {
	grant, err := store.Get[*api.JoinGrant](tx, node.GetApproval().GetGrantId())
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return tx.Update(ca.DenyUse(grant, node.GetId()))
}
