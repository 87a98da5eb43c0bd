package control

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// CompromiseNode shuts a node out for good that somebody else may control, and then replaces what it knew. A manager gets the log until it
// is out of the group: what replaces its knowledge is written only after that. Called again, it goes on where it was interrupted.
func (s *Server) CompromiseNode(ctx context.Context, request *api.CompromiseNodeRequest) (*api.CompromiseNodeResponse, error) {
	id, err := requestID(ctx, "CompromiseNode")
	if err != nil {
		return nil, err
	}
	if request.GetDryRun() {
		return s.compromiseReport(ctx, request.GetNode())
	}
	if err := s.Store.Settle(ctx); err != nil {
		return nil, err
	}
	var response *api.CompromiseNodeResponse
	if err := s.update(ctx, id, func(tx store.Tx) error {
		response = nil
		node, err := resolve[*api.Node](tx, request.GetNode())
		if err != nil || node.GetCompromise() != nil && node.GetCompromise().GetReplacedAt() == nil {
			return err // to go on
		}
		if err := s.checkShutOut(tx, node); err != nil {
			return err
		}
		response, err = s.compromise(tx, node)
		return err
	}); err != nil {
		return nil, err
	}
	if response != nil && !response.GetManager() {
		return response, nil
	}
	if err := s.expel(ctx, request.GetNode()); err != nil {
		return nil, err
	}
	return s.replaceKnown(ctx, request.GetNode())
}

// compromiseReport says what would be done.
func (s *Server) compromiseReport(ctx context.Context, key string) (response *api.CompromiseNodeResponse, err error) {
	err = s.view(ctx, func(tx store.ReadTx) error {
		node, err := resolve[*api.Node](tx, key)
		if err == nil {
			response, err = compromised(tx, node)
		}
		return err
	})
	return response, err
}

// compromise shuts a node out. What a worker knew is replaced in the same transaction: a worker sees nothing of the log.
func (s *Server) compromise(tx store.Tx, node *api.Node) (*api.CompromiseNodeResponse, error) {
	response, err := compromised(tx, node)
	if err != nil {
		return nil, err
	}
	if !response.GetManager() {
		if err := s.changeKnown(tx, node); err != nil {
			return nil, err
		}
	}
	return response, shutOut(tx, node, response.GetManager())
}

// expel takes a manager that was shut out out of the Raft group.
func (s *Server) expel(ctx context.Context, key string) error {
	node, err := current[*api.Node](s, key)
	if err != nil {
		return err
	}
	member := memberOf(s.Status(), node.GetId())
	if member == nil {
		return nil
	}
	err = s.RemoveMember(ctx, member.Member.GetRaftId())
	if errors.Is(err, store.ErrQuorum) {
		return fault.New(fault.Precondition, "node %s is shut out, but a manager until others are up, and what it knew is not replaced yet: "+
			"%w: run the command again then", node.GetId(), err)
	}
	return storeFault(err)
}

// replaceKnown replaces what a manager knew, once.
func (s *Server) replaceKnown(ctx context.Context, key string) (response *api.CompromiseNodeResponse, err error) {
	err = s.update(ctx, "", func(tx store.Tx) error {
		node, err := resolve[*api.Node](tx, key)
		if err != nil {
			return err
		}
		if response, err = compromised(tx, node); err != nil || node.GetCompromise().GetReplacedAt() != nil {
			return err
		}
		if err := s.changeKnown(tx, node); err != nil {
			return err
		}
		if err := s.replaceRoot(tx); err != nil {
			return err
		}
		node = proto.CloneOf(node)
		node.Compromise.ReplacedAt = timestamppb.New(time.Now())
		return tx.Update(node)
	})
	return response, err
}

// replaceRoot begins a rotation of the root CA, if the swarm can do that by itself.
func (s *Server) replaceRoot(tx store.Tx) error {
	cluster, err := theCluster(tx)
	if err != nil || !rotatesRoot(tx, cluster, "") {
		return err
	}
	present, request := cluster.GetRootCa(), &api.RotateRootCARequest{}
	next, err := s.nextRoot(object.NewID(), present, request)
	if err != nil {
		return err
	}
	return beginRotation(tx, present, next, request)
}

// rotatesRoot reports whether the swarm's root CA can be replaced at once: it is the swarm's own, and all nodes but one that is about to
// be shut out can follow.
func rotatesRoot(tx store.ReadTx, cluster *api.Cluster, shutOut string) bool {
	return cluster.GetRootCa().GetExternal() == nil && checkFollowers(tx, shutOut) == nil
}

// checkShutOut refuses what can't be done: by a manager to itself, or to one without which the others can't decide.
func (s *Server) checkShutOut(tx store.Tx, node *api.Node) error {
	status := s.Status()
	switch {
	case node.GetCompromise() != nil:
		return fault.New(fault.Precondition, "node %s is shut out already, since %s",
			node.GetId(), node.GetCompromise().GetAt().AsTime().Format(time.DateTime))
	case waits(node):
		return refuseWaiting(node)
	case node.GetId() == status.NodeID:
		return fault.New(fault.Precondition, "node %s leads the swarm: stop its daemon, so that another manager leads, and try again", node.GetId())
	case memberOf(status, node.GetId()) != nil || node.GetSpec().GetDesiredRole() == api.Role_ROLE_MANAGER:
		return s.checkDemotion(tx, node)
	}
	return nil
}

// shutOut makes a node one that nobody believes and that has nothing to do: the role manager takes it out of the group, and the
// orchestrators replace its tasks as those of a node that is down.
func shutOut(tx store.Tx, old *api.Node, manager bool) error {
	now := time.Now()
	node := proto.CloneOf(old)
	node.Compromise = &api.Compromise{At: timestamppb.New(now), Manager: manager}
	if !manager {
		node.Compromise.ReplacedAt = node.Compromise.At
	}
	orNew(&node.Spec)
	node.Spec.DesiredRole, node.Spec.Availability = api.Role_ROLE_WORKER, api.Availability_AVAILABILITY_DRAIN
	node.Status = &api.NodeStatus{
		State: api.NodeState_NODE_STATE_DOWN, Message: "compromised", Address: old.GetStatus().GetAddress(), ChangedAt: node.Compromise.At,
	}
	if err := tx.Update(node); err != nil {
		return err
	}
	return authz.Revoke(tx, now, node.GetId(), api.Role_ROLE_UNSPECIFIED)
}

// changeKnown replaces what a node knew: a worker the token that it joined with, a manager everything in the store but the root CA.
func (s *Server) changeKnown(tx store.Tx, node *api.Node) error {
	grant, err := grantOf(tx, node.GetId())
	if err == nil && grant != nil {
		err = revokeGrant(tx, grant)
	}
	if err != nil {
		return err
	}
	old, err := theCluster(tx)
	if err != nil {
		return err
	}
	present, err := token.Parse(old.GetJoinTokens().GetWorker())
	if err != nil {
		return fmt.Errorf("read the present join token: %w", err)
	}
	cluster := proto.CloneOf(old)
	cluster.JoinTokens.Worker = token.New(present.Digest()).Reveal()
	if knewAll(node) {
		cluster.JoinTokens.Manager = token.New(present.Digest()).Reveal()
		cluster.BackupKey = s.NewBackupKey()
		cluster.DataKeyGeneration++
		if cluster.GetSpec().GetAutolock() {
			cluster.UnlockKey = s.NewUnlockKey()
		}
	}
	return tx.Update(cluster)
}

// knewAll reports whether a node is a manager, is about to be one, or was one when it was shut out.
func knewAll(node *api.Node) bool {
	return node.GetRole() == api.Role_ROLE_MANAGER || node.GetSpec().GetDesiredRole() == api.Role_ROLE_MANAGER || node.GetCompromise().GetManager()
}

// compromised says what a node held, what is changed because of that, and what is left to do.
func compromised(tx store.ReadTx, node *api.Node) (*api.CompromiseNodeResponse, error) {
	cluster, err := theCluster(tx)
	if err != nil {
		return nil, err
	}
	r := &api.CompromiseNodeResponse{
		NodeId: node.GetId(), Hostname: node.GetDescription().GetHostname(),
		Manager: knewAll(node), Changed: []string{"the join token of workers"},
	}
	if err := held(tx, cluster, r); err != nil {
		return nil, err
	}
	grant, err := grantOf(tx, node.GetId())
	if err != nil {
		return nil, err
	}
	if grant != nil {
		r.Changed = append(r.Changed, "the join token "+grant.GetId()+" that it came by, which is revoked")
	}
	if r.GetManager() {
		r.Changed = append(r.Changed, "the join token of managers", "the key of backups", "the data keys of all managers")
		if cluster.GetSpec().GetAutolock() {
			r.Changed = append(r.Changed, "the unlock key")
		}
	}
	rotates := r.GetManager() && rotatesRoot(tx, cluster, node.GetId())
	if rotates {
		r.Changed = append(r.Changed, "the root of the swarm's CA, node by node: `skep swarm ca` shows how far that is")
	}
	r.Remaining = remaining(cluster, r, rotates)
	return r, nil
}

// held fills in the secrets, tasks and identities that a node had. A manager had all secrets.
func held(tx store.ReadTx, cluster *api.Cluster, r *api.CompromiseNodeResponse) error {
	tasks, err := store.All[*api.Task](tx, store.ByNode(r.GetNodeId()))
	if err != nil {
		return err
	}
	secrets := map[string]bool{}
	for task := range tasks {
		r.Tasks = append(r.Tasks, taskstate.Name(task))
		r.Identities = append(r.Identities, workloadOf(cluster, task).SPIFFEID())
		for _, reference := range task.GetSpec().GetContainer().GetSecrets() {
			secrets[reference.GetSecretName()] = true
		}
	}
	if r.GetManager() {
		all, err := store.All[*api.Secret](tx)
		if err != nil {
			return err
		}
		for secret := range all {
			secrets[secret.GetSpec().GetAnnotations().GetName()] = true
		}
	}
	slices.Sort(r.Tasks)
	slices.Sort(r.Identities)
	r.Tasks, r.Identities = slices.Compact(r.Tasks), slices.Compact(r.Identities)
	r.Secrets = slices.Sorted(maps.Keys(secrets))
	return nil
}

// remaining lists what only people can do.
func remaining(cluster *api.Cluster, r *api.CompromiseNodeResponse, rotates bool) (list []string) {
	if len(r.GetSecrets()) > 0 {
		list = append(list, "change the values of its secrets where they are valid, and give the services secrets with the new ones")
	}
	if len(r.GetIdentities()) > 0 {
		list = append(list, "the identities of its tasks are good for others until they expire, an hour at most")
	}
	if r.GetManager() {
		if rotates {
			list = append(list, "make new certificates for users: theirs end with the old root")
		} else {
			list = append(list, "it could sign by the swarm's CA: replace the root with `skep swarm ca --rotate`, once all nodes can follow")
		}
		if cluster.GetSpec().GetAutolock() {
			list = append(list, "print the new unlock key with `skep swarm unlock-key`, and keep it safe")
		}
	}
	return append(list, fmt.Sprintf("set the machine up anew before it joins again, and forget this one with `skep node rm %s`", r.GetNodeId()))
}
