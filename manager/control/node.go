package control

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// withManagerStatus returns a copy of a node that says what the Raft group knows of it.
func withManagerStatus(node *api.Node, status store.Status) *api.Node {
	node = proto.CloneOf(node)
	node.ManagerStatus = nil
	member := memberOf(status, node.GetId())
	if member == nil {
		node.DataKey = nil // of a store that is gone
		return node
	}
	node.ManagerStatus = &api.ManagerStatus{
		RaftId: member.Member.GetRaftId(), Address: member.Member.GetAddress(), Leader: member.Leader,
		Reachability: api.Reachability_REACHABILITY_UNREACHABLE,
	}
	if member.Reachable || member.Leader {
		node.ManagerStatus.Reachability = api.Reachability_REACHABILITY_REACHABLE
	}
	return node
}

// memberOf returns a node's member of the group, or nil. Of a manager that lost its disk and comes back, there are two for a while:
// then it is the one that has the vote.
func memberOf(status store.Status, nodeID string) (found *store.MemberStatus) {
	for i := range status.Members {
		member := &status.Members[i]
		if member.Member.GetNodeId() == nodeID && (found == nil || found.Member.GetLearner()) {
			found = member
		}
	}
	return found
}

// ListNodes returns all nodes.
func (s *Server) ListNodes(ctx context.Context, _ *api.ListNodesRequest) (*api.ListNodesResponse, error) {
	response := new(api.ListNodesResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		nodes, err := store.List[*api.Node](tx)
		status := s.Status()
		if err != nil {
			return err
		}
		for _, node := range nodes {
			shown := withManagerStatus(node, status)
			if err := showDrain(tx, shown); err != nil {
				return err
			}
			response.Nodes = append(response.Nodes, shown)
		}
		return nil
	})
}

// GetNode returns a node.
func (s *Server) GetNode(ctx context.Context, request *api.GetNodeRequest) (*api.GetNodeResponse, error) {
	response := new(api.GetNodeResponse)
	return response, s.view(ctx, func(tx store.ReadTx) error {
		node, err := resolve[*api.Node](tx, request.GetNode())
		if err != nil {
			return err
		}
		response.Node = withManagerStatus(node, s.Status())
		return showDrain(tx, response.GetNode())
	})
}

// UpdateNode replaces the spec of a node. The role manager and the scheduler act on it.
func (s *Server) UpdateNode(ctx context.Context, request *api.UpdateNodeRequest) (*api.UpdateNodeResponse, error) {
	id, err := requestID(ctx, "UpdateNode")
	if err != nil {
		return nil, err
	}
	if request.GetSpec() == nil {
		return nil, fault.New(fault.Invalid, "spec: the node's spec is missing")
	}
	if request.GetSpec().GetDesiredRole() == api.Role_ROLE_WORKER {
		if err := s.Store.Settle(ctx); err != nil {
			return nil, err
		}
	}
	key := request.GetNodeId()
	response := new(api.UpdateNodeResponse)
	err = s.update(ctx, id, func(tx store.Tx) error {
		old, err := resolve[*api.Node](tx, key)
		if err != nil {
			return err
		}
		if err := refuseWaiting(old); err != nil {
			return err
		}
		if err := checkVersion(old, request.GetVersion()); err != nil {
			return err
		}
		if old.GetCompromise() != nil {
			return fault.New(fault.Precondition, "node %s is compromised and stays shut out: remove it with `skep node rm`, "+
				"set the machine up anew, and let it join as another node", old.GetId())
		}
		node := proto.CloneOf(old)
		node.Spec = proto.CloneOf(request.GetSpec())
		if err := fillAndValidateNode(node.Spec, old.GetSpec()); err != nil {
			return err
		}
		if err := mayChangeRole(ctx, old, node.GetSpec()); err != nil {
			return err
		}
		if err := mayChangeLabels(ctx, tx, old, node.GetSpec()); err != nil {
			return err
		}
		if demotes(old, node.GetSpec()) {
			if err := s.checkDemotion(tx, old); err != nil {
				return err
			}
		}
		if response.Warnings, err = beginDrain(tx, time.Now(), old, node); err != nil {
			return err
		}
		return tx.Update(node)
	})
	if err != nil {
		return nil, err
	}
	node, err := current[*api.Node](s, key)
	if err != nil {
		return nil, err
	}
	response.Node = withManagerStatus(node, s.Status())
	return response, nil
}

// mayChangeRole refuses operators, who may set all of a node's spec but whether it is a manager: a manager has all secrets.
func mayChangeRole(ctx context.Context, old *api.Node, spec *api.NodeSpec) error {
	caller := authz.FromContext(ctx)
	if caller.Kind != api.Caller_CALLER_OPERATOR || spec.GetDesiredRole() == old.GetSpec().GetDesiredRole() {
		return nil
	}
	return fault.New(fault.PermissionDenied, "permission denied: user %s has the role operator, and only an admin promotes and demotes nodes: "+
		"ask an admin to do it (`skep node promote` or `skep node demote`)", caller.User)
}

// mayChangeLabels refuses operators the labels by which grants say on which nodes they hold: who sets one gives what the grant has of the node.
func mayChangeLabels(ctx context.Context, tx store.ReadTx, old *api.Node, spec *api.NodeSpec) error {
	if authz.FromContext(ctx).Kind != api.Caller_CALLER_OPERATOR {
		return nil
	}
	before, after := old.GetSpec().GetAnnotations().GetLabels(), spec.GetAnnotations().GetLabels()
	grants, err := store.List[*api.Grant](tx)
	if err != nil {
		return err
	}
	for _, grant := range grants {
		for label := range grant.GetSpec().GetNodeLabels() {
			was, had := before[label]
			if is, has := after[label]; had != has || was != is {
				return fault.New(fault.PermissionDenied, "label %s of a node says where grant %s holds: ask an admin to change it", clip(label),
					grant.GetSpec().GetAnnotations().GetName())
			}
		}
	}
	return nil
}

// fillAndValidateNode takes what spec leaves open from the present spec, and reports all problems.
func fillAndValidateNode(spec, present *api.NodeSpec) error {
	orNew(&spec.Annotations)
	if spec.GetDesiredRole() == api.Role_ROLE_UNSPECIFIED {
		spec.DesiredRole = present.GetDesiredRole()
	}
	if spec.GetAvailability() == api.Availability_AVAILABILITY_UNSPECIFIED {
		spec.Availability = present.GetAvailability()
	}
	p := new(problems)
	p.knownFields(spec)
	p.known("desired_role", spec.GetDesiredRole())
	p.known("availability", spec.GetAvailability())
	p.labels("annotations.labels", spec.GetAnnotations().GetLabels())
	if spec.GetAvailability() != api.Availability_AVAILABILITY_DRAIN {
		spec.DrainTimeout = nil
	}
	p.duration("drain_timeout", spec.GetDrainTimeout())
	return p.err()
}

func demotes(old *api.Node, spec *api.NodeSpec) bool {
	return old.GetSpec().GetDesiredRole() == api.Role_ROLE_MANAGER && spec.GetDesiredRole() == api.Role_ROLE_WORKER
}

// checkDemotion refuses to make a worker of a manager when those that stay could not decide anything (C5). It makes the
// transaction depend on the managers that it counts on, so that two demotions cannot pass one beside the other.
func (s *Server) checkDemotion(tx store.Tx, node *api.Node) error {
	nodes, err := store.List[*api.Node](tx)
	if err != nil {
		return err
	}
	staying, reachable := 0, 0
	status := s.Status()
	for _, other := range nodes {
		if other.GetId() == node.GetId() || other.GetSpec().GetDesiredRole() != api.Role_ROLE_MANAGER {
			continue
		}
		if err := tx.Require(other); err != nil {
			return err
		}
		member := memberOf(status, other.GetId())
		if member == nil || member.Member.GetLearner() {
			continue // promoted, but without a vote yet
		}
		staying++
		if member.Reachable || member.Leader {
			reachable++
		}
	}
	if staying == 0 {
		return fault.New(fault.Precondition, "attempting to demote the last manager of the swarm")
	}
	if quorum := staying/2 + 1; reachable < quorum {
		return fault.New(fault.Precondition, "node %s can't leave the managers: this would result in a loss of quorum: it leaves %d of %d managers "+
			"reachable, and %d are needed", node.GetId(), reachable, staying, quorum)
	}
	return nil
}

// RemoveNode removes a node that is down, or any worker by force. Its certificate is refused from then on.
func (s *Server) RemoveNode(ctx context.Context, request *api.RemoveNodeRequest) (*api.RemoveNodeResponse, error) {
	id, err := requestID(ctx, "RemoveNode")
	if err != nil {
		return nil, err
	}
	if err := s.Store.Settle(ctx); err != nil {
		return nil, err
	}
	response := &api.RemoveNodeResponse{NodeId: request.GetNode()}
	return response, s.update(ctx, id, func(tx store.Tx) error {
		node, err := resolve[*api.Node](tx, request.GetNode())
		if err != nil {
			return err
		}
		response.NodeId = node.GetId()
		if err := s.checkRemoval(tx, node, request.GetForce()); err != nil {
			return err
		}
		if err := authz.Revoke(tx, time.Now(), node.GetId(), api.Role_ROLE_UNSPECIFIED); err != nil {
			return err
		}
		return tx.Delete(object.KindNode, node.GetId())
	})
}

// checkRemoval refuses to remove a node that works, and one whose vote is needed (C5). By force, a worker goes in any state, and a
// manager that is dead: the role manager takes the member of a node that is gone out of the group.
func (s *Server) checkRemoval(tx store.Tx, node *api.Node, force bool) error {
	if err := refuseWaiting(node); err != nil {
		return err
	}
	member := memberOf(s.Status(), node.GetId())
	manager := node.GetSpec().GetDesiredRole() == api.Role_ROLE_MANAGER || member != nil
	alive := node.GetStatus().GetState() == api.NodeState_NODE_STATE_READY
	if member != nil {
		alive = member.Reachable || member.Leader
	}
	switch {
	case manager && (alive || !force):
		return fault.New(fault.Precondition, "node %s is a cluster manager and is a member of the raft cluster. "+
			"It must be demoted to worker before removal; one that is dead can be removed with --force", node.GetId())
	case manager:
		return s.checkDemotion(tx, node)
	case alive && !force:
		return fault.New(fault.Precondition, "node %s is not down and can't be removed: stop it, or remove it with --force", node.GetId())
	}
	return nil
}
