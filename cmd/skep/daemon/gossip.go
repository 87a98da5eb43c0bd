package daemon

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/gossip"
	"github.com/skep-io/skep/manager"
)

// makeGossip makes what finds out whose machine is gone, which run runs.
func (n *node) makeGossip() error {
	listen, err := netip.ParseAddrPort(n.membership.ListenAddress)
	if err != nil {
		return fmt.Errorf("listen address: %w", err)
	}
	advertise, err := netip.ParseAddrPort(n.membership.AdvertiseAddress)
	if err != nil {
		return fmt.Errorf("advertise address: %w", err)
	}
	n.gossip, err = gossip.New(gossip.Config{
		NodeID: n.identity.NodeID(), ClusterID: n.identity.ClusterID(), Listen: listen.Addr(), Advertise: advertise.Addr(),
		Asks: func(nodeID string) bool {
			m := n.itsManager()
			return m != nil && m.Ready(nodeID) || n.itsAgent().Uses(nodeID)
		},
		Gone: func(nodeID string, tried time.Time) {
			n.itsAgent().Doubt(nodeID)
			if m := n.itsManager(); m != nil {
				m.Suspect(nodeID, tried)
			}
		},
		Logger: n.logger.With("component", "gossip"),
	})
	return err
}

// itsManager returns the manager that runs here, or nil.
func (n *node) itsManager() *manager.Manager {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.manager
}

// gossipPeers are managers by which a node begins to gossip.
func gossipPeers(managers []*api.ManagerPeer) []gossip.Peer {
	var peers []gossip.Peer
	for _, m := range managers {
		if address, err := netip.ParseAddrPort(m.GetAddress()); err == nil {
			peers = append(peers, gossip.Peer{NodeID: m.GetNodeId(), Address: address.Addr()})
		}
	}
	return peers
}
