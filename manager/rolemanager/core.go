package rolemanager

import (
	"fmt"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
)

// State is what a decision depends on.
type State struct {
	// Nodes are all nodes of the cluster.
	Nodes []*api.Node
	// Self is the node id of the leader, which decides.
	Self string
	// Members are all members of the Raft group, learners included.
	Members []store.MemberStatus
}

// Effect is something to do; the order of several does not matter.
type Effect interface{ fmt.Stringer }

// SetRole gives a node's certificate the role that its spec wants.
type SetRole struct {
	NodeID string
	Role   api.Role
}

// RemoveMember takes a manager out of the Raft group.
type RemoveMember struct {
	NodeID string
	RaftID uint64
}

// TransferLeadership lets another manager lead, because this one is to leave the group.
type TransferLeadership struct{}

// Wait says that a member can't be removed now: the others would have no quorum.
type Wait struct {
	NodeID            string
	Reachable, Quorum int
}

// String describes the effect for logs and scripts.
func (e SetRole) String() string { return fmt.Sprintf("node %s gets %s", e.NodeID, e.Role) }

// String describes the effect for logs and scripts.
func (e RemoveMember) String() string {
	return fmt.Sprintf("member %d of node %s is removed", e.RaftID, e.NodeID)
}

// String describes the effect for logs and scripts.
func (TransferLeadership) String() string { return "another manager is to lead" }

// String describes the effect for logs and scripts.
func (e Wait) String() string {
	return fmt.Sprintf("node %s stays a member: of the others %d can be reached and %d are needed", e.NodeID, e.Reachable, e.Quorum)
}

// Step decides what is to be done in a state. Without effects, nothing is.
func Step(state State) []Effect {
	if len(state.Nodes) == 0 {
		// A swarm that is being made: its first manager is a member already, and will be a node in a moment.
		return nil
	}
	nodes := map[string]*api.Node{}
	for _, node := range state.Nodes {
		nodes[node.GetId()] = node
	}
	members := map[string]bool{}
	var effects []Effect
	removing := false
	for _, member := range state.Members {
		id := member.Member.GetNodeId()
		members[id] = true
		if removing || !leaves(nodes[id]) {
			continue
		}
		effect := leave(state, member)
		_, removing = effect.(RemoveMember) // R4
		effects = append(effects, effect)
	}
	for _, node := range state.Nodes {
		if role := node.GetSpec().GetDesiredRole(); wantsRole(node, members[node.GetId()]) {
			effects = append(effects, SetRole{NodeID: node.GetId(), Role: role})
		}
	}
	return effects
}

// leaves reports whether the member of a node, nil when the node was removed, is to leave the group.
func leaves(node *api.Node) bool {
	return node == nil || node.GetSpec().GetDesiredRole() == api.Role_ROLE_WORKER
}

// wantsRole reports whether a node's role is to become the desired one now.
func wantsRole(node *api.Node, member bool) bool {
	desired := node.GetSpec().GetDesiredRole()
	if desired == node.GetRole() {
		return false
	}
	return desired == api.Role_ROLE_MANAGER || desired == api.Role_ROLE_WORKER && !member // R1
}

// leave is the next thing to do for a member that is to leave.
func leave(state State, leaving store.MemberStatus) Effect {
	id := leaving.Member.GetNodeId()
	voters, reachable := 0, 0
	for _, other := range state.Members {
		if other.Member.GetRaftId() == leaving.Member.GetRaftId() || other.Member.GetLearner() {
			continue
		}
		voters++
		if other.Reachable || other.Leader {
			reachable++
		}
	}
	if quorum := voters/2 + 1; voters == 0 || reachable < quorum {
		return Wait{NodeID: id, Reachable: reachable, Quorum: quorum} // R3
	}
	if id == state.Self {
		return TransferLeadership{} // R2
	}
	return RemoveMember{NodeID: id, RaftID: leaving.Member.GetRaftId()}
}
