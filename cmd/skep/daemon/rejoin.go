package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/keyfile"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/raftcore"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/wal"
)

// answerPatience is how long one of the other managers may take to answer whether there is a leader.
const answerPatience = 5 * time.Second

// RejoinSwarm makes this manager get its store anew from the other managers, as the same node: its certificate is good, and what is
// in its store they have too. The former store is kept until this manager has caught up.
//
//	damaged  --the others answer-->  set aside  --starts without a store-->  joins, see joinGroup  --votes-->  former store removed
//
// A crash on the way is none: a manager without a store joins by itself.
func (d *Daemon) RejoinSwarm(ctx context.Context, request *api.RejoinSwarmRequest) (*api.RejoinSwarmResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	m, member, err := d.disk.membership()
	switch {
	case err != nil:
		return nil, fault.Wrap(fault.Precondition, err)
	case !member:
		return nil, errNotMember
	}
	if m, err = d.relocate(m); err != nil {
		return nil, err
	}
	running, unlock, err := d.mayRejoin(request)
	if err != nil {
		return nil, err
	}
	n := running
	if n == nil {
		n, err = d.storeless(ctx, m, unlock)
	}
	if errors.Is(err, keyfile.ErrLocked) {
		if !unlock.IsZero() {
			return nil, fault.New(fault.PermissionDenied, "invalid key: it does not open this node's key")
		}
		return &api.RejoinSwarmResponse{NeedsUnlockKey: true}, nil
	}
	if err == nil {
		err = n.othersHaveState(ctx)
	}
	if err != nil {
		return nil, err
	}
	return d.rejoin(ctx, m, n, unlock)
}

// rejoin sets the store aside and starts the node without it. n runs or was not started.
func (d *Daemon) rejoin(ctx context.Context, m membership, n *node, unlock seal.Key) (*api.RejoinSwarmResponse, error) {
	n.stop()
	err := d.disk.setStoreAside(errors.Is(d.reason(), seal.ErrKeyFile))
	if err == nil {
		var u unsealed
		u, err = d.unsealStoreless(ctx, unlock)
		n = d.newNode(m, u.keys, ca.NewIdentity(u.credentials), u.kek, u.source)
	}
	if err == nil {
		err = d.launch(ctx, n)
	}
	if err != nil {
		d.fell() // whatever is there now, the node goes on with it
		return nil, fmt.Errorf("set the store aside: %w", err)
	}
	d.logger.Info("the store is set aside; this manager joins the others again", "former", d.disk.path(formerStoreDir))
	if err := n.await(ctx); err != nil {
		return nil, fmt.Errorf("%w: this manager goes on trying to join them; its former store is kept in %s until it has",
			err, d.disk.path(formerStoreDir))
	}
	return &api.RejoinSwarmResponse{
		NodeId: n.identity.NodeID(), CaughtUp: n.awaitVote(ctx), FormerStore: d.disk.path(formerStoreDir),
	}, nil
}

// mayRejoin refuses what rejoining would not help, and returns the node that runs, or nil, and the unlock key that is known.
func (d *Daemon) mayRejoin(request *api.RejoinSwarmRequest) (running *node, unlock seal.Key, err error) {
	d.mu.Lock()
	n, locked, broken := d.current, d.locked, d.broken
	unlock = d.unlock
	d.mu.Unlock()
	if request.GetUnlockKey() != "" {
		if unlock, err = seal.ParseUnlockKey(request.GetUnlockKey()); err != nil {
			return nil, unlock, fault.Wrap(fault.Invalid, err)
		}
	}
	switch {
	case n != nil && n.identity.Role() != api.Role_ROLE_MANAGER:
		return nil, unlock, errNoStore
	case n != nil && !request.GetForce():
		return nil, unlock, fault.New(fault.Precondition, "the store of this node is not damaged: nothing was done. "+
			"`skep swarm rejoin --force` replaces it all the same by what the other managers have")
	case n != nil:
		return n, n.unlockKey(), nil
	case locked && request.GetForce(): // its key ring may be what is damaged
	case locked:
		return nil, unlock, errLocked
	case broken == nil:
		return nil, unlock, fault.New(fault.Unavailable, "this node is starting: try again soon")
	case !damaged(broken) && !request.GetForce():
		return nil, unlock, fault.New(fault.Precondition, "the store of this node does not look damaged, but something else keeps it from its "+
			"swarm: %w. `skep swarm rejoin --force` replaces the store all the same by what the other managers have", broken)
	}
	return nil, unlock, nil
}

// damaged reports whether an error says that a store can't be used any more, by any version.
func damaged(err error) bool {
	for _, sentinel := range []error{wal.ErrCorrupt, seal.ErrWrongKey, seal.ErrKeyFile, errNoOwnKey, raftcore.ErrBroken} {
		if errors.Is(err, sentinel) {
			return true
		}
	}
	return false
}

// storeless returns this machine's node without its store, to ask the others. It returns keyfile.ErrLocked when that needs another
// unlock key. Nothing on the disk changes.
func (d *Daemon) storeless(ctx context.Context, m membership, unlock seal.Key) (*node, error) {
	opening, closed := d.own.found(ctx)
	if !unlock.IsZero() {
		opening = append(opening, unlock)
	}
	keys := openKeys(d.cfg.DataDir, opening)
	credentials, err := keys.Load()
	if errors.Is(err, keyfile.ErrLocked) && closed != nil {
		err = closed
	}
	if err != nil {
		return nil, err
	}
	return d.newNode(m, keys, ca.NewIdentity(credentials), seal.Key{}, 0), nil
}

// othersHaveState refuses to go on where the other managers can't give this one the state.
func (n *node) othersHaveState(ctx context.Context) error {
	if n.identity.Role() != api.Role_ROLE_MANAGER {
		return errNoStore
	}
	if len(n.managers()) == 0 {
		return errOnlyManager
	}
	// The answer comes from the leader: there is one, and it takes this node for what it says it is.
	var nodes []*api.Node
	err := n.eachManager(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		ctx, cancel := context.WithTimeout(ctx, answerPatience)
		defer cancel()
		response, err := api.NewControlClient(conn).ListNodes(ctx, &api.ListNodesRequest{})
		nodes = response.GetNodes()
		return err
	})
	if err != nil {
		return fault.New(fault.Precondition, "no other manager can give this one the state, so its store stays as it is: %w; try again when "+
			"more than half of the managers are up. If they are gone for ever, restore a backup", err)
	}
	return othersDecide(nodes, n.identity.NodeID())
}

// othersDecide refuses to take a manager's store away without which the others would be no majority.
func othersDecide(nodes []*api.Node, self string) error {
	managers, others := 0, 0
	for _, node := range nodes {
		if node.GetManagerStatus() == nil {
			continue
		}
		managers++
		if node.GetId() != self && node.GetManagerStatus().GetReachability() == api.Reachability_REACHABILITY_REACHABLE {
			others++
		}
	}
	if managers <= 1 {
		return errOnlyManager
	}
	if quorum := managers/2 + 1; others < quorum {
		return fault.New(fault.Precondition, "can't rejoin: without this one, %d of %d managers can be reached, and %d are needed to give it "+
			"the state", others, managers, quorum)
	}
	return nil
}

var (
	// errOnlyManager is returned when there is nobody to get the state from.
	errOnlyManager = fault.New(fault.Precondition, "this is the only manager of its swarm: nobody else has the state. Restore a backup")
	// errNoStore is returned on workers.
	errNoStore = fault.New(fault.Precondition, "this node is a worker: it has no copy of the cluster store to get anew. "+
		"If it can't take part in its swarm, run `skep swarm leave --force` and join again")
)

// awaitVote reports whether the manager votes, after a while at most.
func (n *node) awaitVote(ctx context.Context) bool {
	timer := time.NewTimer(joinPatience)
	defer timer.Stop()
	select {
	case <-n.voting:
		return true
	case <-timer.C:
	case <-ctx.Done():
	case <-n.done:
	}
	return false
}

// keepFormerStore removes what a rejoin set aside once this manager has the state and a vote.
func (n *node) keepFormerStore(ctx context.Context, s *store.Store) error {
	for !votes(s, n.identity.NodeID()) {
		_, changed := s.Leadership()
		if votes(s, n.identity.NodeID()) {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
	n.votingOnce.Do(func() { close(n.voting) })
	return n.daemon.disk.removeFormerStore()
}

// votes reports whether the manager of this store is a voting member, as far as it knows.
func votes(s *store.Store, nodeID string) bool {
	status := s.Status()
	for _, member := range status.Members {
		if member.Member.GetRaftId() == status.RaftID && member.Member.GetNodeId() == nodeID {
			return !member.Member.GetLearner()
		}
	}
	return false
}
