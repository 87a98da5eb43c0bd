package dispatcher

import (
	"context"
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
)

// maxHolders bounds the answer to LocateImage.
const maxHolders = 32

// LocateImage names ready nodes that have an image, beginning somewhere that depends on the caller, to spread the load.
func (d *Dispatcher) LocateImage(ctx context.Context, request *api.LocateImageRequest) (*api.LocateImageResponse, error) {
	who, err := caller(ctx)
	if err != nil {
		return nil, fault.Status(err)
	}
	var holders []*api.ImageHolder
	err = d.cfg.Store.View(func(tx store.ReadTx) error {
		nodes, err := store.List[*api.Node](tx)
		for _, n := range nodes {
			if n.GetId() != who.NodeID && holds(n, request.GetDigest()) {
				holders = append(holders, &api.ImageHolder{NodeId: n.GetId(), PeerAddress: n.GetDescription().GetPeerAddress()})
			}
		}
		return err
	})
	if err != nil {
		return nil, fault.Status(err)
	}
	first, _ := slices.BinarySearchFunc(holders, who.NodeID, func(h *api.ImageHolder, id string) int { return strings.Compare(h.GetNodeId(), id) })
	holders = slices.Concat(holders[first:], holders[:first])
	return &api.LocateImageResponse{Holders: holders[:min(len(holders), maxHolders)]}, nil
}

// holds reports whether a node can hand out an image.
func holds(n *api.Node, digest string) bool {
	if n.GetStatus().GetState() != api.NodeState_NODE_STATE_READY || n.GetDescription().GetPeerAddress() == "" {
		return false
	}
	return slices.ContainsFunc(n.GetDescription().GetImages(), func(i *api.ImageSummary) bool { return i.GetDigest() == digest })
}
