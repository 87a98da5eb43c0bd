package daemon

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/skep-io/skep/agent"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// makeAgent makes the node's agent, which run runs.
func (n *node) makeAgent() error {
	hostname, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("host name: %w", err)
	}
	cfg := n.daemon.cfg
	a, err := agent.New(agent.Config{
		Identity: n.identity, Managers: n.firstManagers(), DataDir: cfg.DataDir,
		Images: n.daemon.images, Runtime: n.daemon.runtime, BridgeSubnet: cfg.BridgeSubnet, CDISpecDirs: cfg.CDISpecDirs,
		Hostname: hostname, Version: cfg.Version, PeerAddress: n.membership.AdvertiseAddress,
		LocalAddress: localAddress(n.membership.ListenAddress), Labels: cfg.Labels, Generic: cfg.Generic,
		Registered: n.registered, Logger: n.logger,
	})
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.agent = a
	return nil
}

// firstManagers are the managers that the agent begins with: a manager's agent begins with its own.
func (n *node) firstManagers() []string {
	if n.identity.Role() == api.Role_ROLE_MANAGER {
		return append([]string{n.membership.AdvertiseAddress}, n.membership.Managers...)
	}
	return n.membership.Managers
}

// registered takes in what a manager says when the agent's session begins, and whenever that changes.
func (n *node) registered(r *api.SessionResponse) {
	n.distrust(r.GetRevocationsVersion(), r.GetRevocations())
	if role := r.GetNode().GetRole(); role != api.Role_ROLE_UNSPECIFIED && role != n.identity.Role() {
		n.renewer.RenewNow()
	}
	n.followRoots(r)
	var managers []string
	for _, peer := range r.GetManagers() {
		if peer.GetNodeId() != n.identity.NodeID() {
			managers = append(managers, peer.GetAddress())
		}
	}
	slices.Sort(managers)
	n.gossip.Tell(r.GetGossipKeys(), gossipPeers(r.GetManagers()))
	if err := n.remember(managers); err != nil {
		n.logger.Error("can't save the managers' addresses", "error", err)
	}
	n.readyOnce.Do(func() { close(n.ready) })
}

// remember saves the other managers' addresses when they changed.
func (n *node) remember(managers []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(managers, n.membership.Managers) || len(managers) == 0 {
		return nil
	}
	n.membership.Managers = managers
	if n.first && !n.founded {
		return nil // begin saves it, as its last step
	}
	return n.daemon.disk.saveMembership(n.membership)
}

// saveMembership saves the membership of a first manager, which counts from now on.
func (n *node) saveMembership() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.founded = true
	return n.daemon.disk.saveMembership(n.membership)
}

// itsAgent returns the agent, or nil while there is none.
func (n *node) itsAgent() *agent.Agent {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.agent
}

// announce tells the managers what this node has.
func (n *node) announce(ctx context.Context) error {
	if a := n.itsAgent(); a != nil {
		return a.Announce(ctx)
	}
	return nil
}

// imagesKept waits until the agent has taken its containers over, with their images.
func (n *node) imagesKept(ctx context.Context) error {
	a := n.itsAgent()
	if a == nil {
		return fault.New(fault.Unavailable, "this node starts, and does not know yet which images its containers have: try again soon")
	}
	select {
	case <-a.Adopted():
		return nil
	case <-ctx.Done():
		return fault.Wrap(fault.Unavailable, fmt.Errorf("this node has not found all its containers yet: %w", context.Cause(ctx)))
	}
}

func (n *node) isLeaving() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.membership.Leaving
}

// saveLeaving notes that the node is on its way out.
func (n *node) saveLeaving() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.membership.Leaving = true
	return n.daemon.disk.saveMembership(n.membership)
}
