package control

import (
	"context"
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
	"github.com/skep-io/skep/store"
)

// CompromiseNode shuts a node out for good that somebody else may control. All of it is one transaction: there is no moment at which
// the node is out and could still use what it knew.
func (s *Server) CompromiseNode(ctx context.Context, request *api.CompromiseNodeRequest) (*api.CompromiseNodeResponse, error) {
	id, err := requestID(ctx, "CompromiseNode")
	if err != nil {
		return nil, err
	}
	var response *api.CompromiseNodeResponse
	if !request.GetDryRun() {
		if err := s.update(ctx, id, func(tx store.Tx) error {
			response, err = s.compromise(tx, request.GetNode())
			return err
		}); err != nil {
			return nil, err
		}
	}
	if response == nil { // nothing is to be done, or it was
		err = s.view(ctx, func(tx store.ReadTx) error {
			response, err = compromised(tx, request.GetNode())
			return err
		})
	}
	return response, err
}

func (s *Server) compromise(tx store.Tx, key string) (*api.CompromiseNodeResponse, error) {
	node, err := resolve[*api.Node](tx, key)
	if err != nil {
		return nil, err
	}
	if err := refuseWaiting(node); err != nil {
		return nil, err
	}
	response, err := compromised(tx, node.GetId())
	if err != nil {
		return nil, err
	}
	if err := s.checkShutOut(tx, node); err != nil {
		return nil, err
	}
	if err := s.changeKnown(tx, response.GetManager()); err != nil {
		return nil, err
	}
	grant, err := grantOf(tx, node.GetId())
	if err == nil && grant != nil {
		err = revokeGrant(tx, grant)
	}
	if err != nil {
		return nil, err
	}
	return response, shutOut(tx, node)
}

// checkShutOut refuses what can't be done: by a manager to itself, or to one without which the others can't decide.
func (s *Server) checkShutOut(tx store.Tx, node *api.Node) error {
	status := s.Status()
	switch {
	case node.GetCompromisedAt() != nil:
		return fault.New(fault.Precondition, "node %s is shut out already, since %s", node.GetId(), node.GetCompromisedAt().AsTime().Format(time.DateTime))
	case node.GetId() == status.NodeID:
		return fault.New(fault.Precondition, "node %s leads the swarm: stop its daemon, so that another manager leads, and try again", node.GetId())
	case memberOf(status, node.GetId()) != nil || node.GetSpec().GetDesiredRole() == api.Role_ROLE_MANAGER:
		return s.checkDemotion(tx, node)
	}
	return nil
}

// shutOut makes a node one that nobody believes and that has nothing to do: the role manager takes it out of the group, and the
// orchestrators replace its tasks as those of a node that is down.
func shutOut(tx store.Tx, old *api.Node) error {
	now := time.Now()
	node := proto.CloneOf(old)
	node.CompromisedAt = timestamppb.New(now)
	orNew(&node.Spec)
	node.Spec.DesiredRole, node.Spec.Availability = api.Role_ROLE_WORKER, api.Availability_AVAILABILITY_DRAIN
	node.Status = &api.NodeStatus{
		State: api.NodeState_NODE_STATE_DOWN, Message: "compromised", Address: old.GetStatus().GetAddress(), ChangedAt: node.CompromisedAt,
	}
	if err := tx.Update(node); err != nil {
		return err
	}
	return authz.Revoke(tx, now, node.GetId(), api.Role_ROLE_UNSPECIFIED)
}

// changeKnown replaces what a node knew: a worker the token that it joined with, a manager everything in the store.
func (s *Server) changeKnown(tx store.Tx, manager bool) error {
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
	if manager {
		cluster.JoinTokens.Manager = token.New(present.Digest()).Reveal()
		cluster.BackupKey = s.NewBackupKey()
		cluster.DataKeyGeneration++
		if cluster.GetSpec().GetAutolock() {
			cluster.UnlockKey = s.NewUnlockKey()
		}
	}
	return tx.Update(cluster)
}

// compromised says what a node held, what is changed because of that, and what is left to do.
func compromised(tx store.ReadTx, key string) (*api.CompromiseNodeResponse, error) {
	node, err := resolve[*api.Node](tx, key)
	if err != nil {
		return nil, err
	}
	cluster, err := theCluster(tx)
	if err != nil {
		return nil, err
	}
	r := &api.CompromiseNodeResponse{
		NodeId: node.GetId(), Hostname: node.GetDescription().GetHostname(),
		Manager: node.GetRole() == api.Role_ROLE_MANAGER || node.GetSpec().GetDesiredRole() == api.Role_ROLE_MANAGER,
		Changed: []string{"the join token of workers"},
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
	r.Remaining = remaining(cluster, r)
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
		name := fmt.Sprintf("%s.%d", task.GetServiceName(), task.GetSlot())
		r.Tasks = append(r.Tasks, name)
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
func remaining(cluster *api.Cluster, r *api.CompromiseNodeResponse) (list []string) {
	if len(r.GetSecrets()) > 0 {
		list = append(list, "change the values of its secrets where they are valid, and give the services secrets with the new ones")
	}
	if len(r.GetIdentities()) > 0 {
		list = append(list, "the identities of its tasks are good for others until they expire, an hour at most")
	}
	if r.GetManager() {
		list = append(list, "it had the key of the swarm's CA: replace it with `skep swarm ca --rotate`")
		if cluster.GetSpec().GetAutolock() {
			list = append(list, "print the new unlock key with `skep swarm unlock-key`, and keep it safe")
		}
	}
	return append(list, fmt.Sprintf("set the machine up anew before it joins again, and forget this one with `skep node rm %s`", r.GetNodeId()))
}
