package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/agent/executor"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/manager/raftnet"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/wal"
)

// rejoinPause is the time between two tries to become a member of the Raft group.
const rejoinPause = time.Second

// followRole is a manager while the certificate says so, until ctx ends.
func (n *node) followRole(ctx context.Context) error {
	for ctx.Err() == nil {
		changed := n.identity.Watch()
		if n.identity.Role() != api.Role_ROLE_MANAGER {
			if err := n.dropStore(ctx); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		if err := n.manage(ctx); err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// manage is a manager until ctx ends, the role changes, or the group removed this member. The rest of the node goes on.
func (n *node) manage(outer context.Context) error {
	ctx, cancel := context.WithCancel(outer)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer cancel()
		return n.untilWorker(ctx)
	})
	group.Go(func() error {
		defer cancel()
		return n.runManager(ctx)
	})
	removed := n.identity.Watch()
	err := group.Wait()
	switch {
	case errors.Is(err, store.ErrRemoved):
	case errors.Is(err, context.Canceled) && n.identity.Role() != api.Role_ROLE_MANAGER:
		return nil // it was on its way to be a manager, and is a worker now
	default:
		return err
	}
	n.logger.Info("this manager was removed from the group; it goes on as a worker")
	n.setRemoved(true)
	defer n.setRemoved(false)
	if err := n.dropStore(ctx); err != nil {
		return err
	}
	// Only a new certificate says what this node is now: with the old one it would join the group again. So it would with the new one when it
	// was removed because it leaves: nobody has told the others that it is no manager.
	if !n.isLeaving() {
		n.renewer.RenewNow()
	}
	select {
	case <-outer.Done():
	case <-removed:
	}
	return nil
}

// setRemoved notes whether this node waits to learn what it is, after the group removed it.
func (n *node) setRemoved(removed bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.removed = removed
}

func (n *node) isRemoved() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.removed
}

// untilWorker returns when the certificate says that the node is no manager any more.
func (n *node) untilWorker(ctx context.Context) error {
	for {
		changed := n.identity.Watch()
		if n.identity.Role() != api.Role_ROLE_MANAGER {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// runManager opens or makes the store, and runs the manager on it.
func (n *node) runManager(ctx context.Context) error {
	raft := raftnet.NewServer(raftnet.ServerConfig{
		NodeID: n.identity.NodeID(), ClusterID: n.identity.ClusterID(), Dial: n.dial,
		Caller: func(ctx context.Context) (string, string) {
			caller := authz.FromContext(ctx)
			return caller.NodeID, caller.Address
		},
	})
	managed := n.daemon.managed
	api.RegisterRaftServer(managed, raft)
	defer managed.depart()
	s, err := n.ensureStore(ctx)
	if err != nil {
		return err
	}
	defer n.setStore(nil)
	m, err := manager.New(manager.Config{
		NodeID: n.identity.NodeID(), Store: s, Raft: raft, Logger: n.logger, Identity: n.identity,
		Distrust: n.distrust, Silent: n.gossip.Silent, CompileSeccomp: executor.CompileProfile,
		BackupDir: n.daemon.disk.path(backupDir), Version: n.daemon.cfg.Version,
		Dial: func(address, nodeID string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
			return n.dial(nodeID, address, options...)
		},
		LocalKey: func(ctx context.Context) (seal.Key, seal.Source, error) { return n.ownKey(ctx) },
		Reseal:   func(kek seal.Key, source seal.Source) error { return n.reseal(s, kek, source) },
	})
	if err != nil {
		return errors.Join(err, discard(s))
	}
	raft.Attach(s)
	defer raft.Attach(nil)
	managed.arrive(m.Interceptor(), m.Nodes(), m.Users(), m.Audit())
	m.Register(managed)
	n.setManager(m)
	defer n.setManager(nil)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return m.Run(ctx) })
	group.Go(func() error { return n.keepFormerStore(ctx, s) })
	group.Go(func() error { return n.daemon.people.Follow(ctx, s) })
	group.Go(func() error { return n.keepMember(ctx, s) })
	if n.founding != nil {
		group.Go(func() error { return manager.Bootstrap(ctx, s, *n.founding) })
	}
	return group.Wait()
}

// setStore notes the store that is open.
func (n *node) setStore(s *store.Store) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.store = s
}

// openStore opens the store that this manager had before a restart. It does nothing when there is none.
func (n *node) openStore() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	s, err := store.Open(store.Config{
		Disk:      store.Disk{Dir: n.daemon.disk.path(storeDir), KEK: n.kek, Source: n.source},
		Transport: raftnet.NewTransport(raftnet.TransportConfig{Dial: n.dial, Logger: n.logger}), Logger: n.logger,
	})
	if errors.Is(err, wal.ErrNone) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open the cluster store: %w", err)
	}
	n.store = s
	return nil
}

// ensureStore returns the store, after joining the group if this node was no member yet.
func (n *node) ensureStore(ctx context.Context) (*store.Store, error) {
	for {
		if n.opened() == nil {
			if err := n.openStore(); err != nil {
				return nil, err
			}
		}
		if s := n.opened(); s != nil {
			n.groupedOnce.Do(func() { close(n.grouped) })
			return s, nil
		}
		err := n.joinGroup(ctx)
		n.noteProblem(err)
		if err == nil {
			continue
		}
		n.logger.Warn("can't join the managers yet", "error", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(rejoinPause):
		}
	}
}

// noteProblem notes why this manager is not in the group yet, for a person who waits for it.
func (n *node) noteProblem(err error) {
	n.mu.Lock()
	n.problem = err
	n.mu.Unlock()
	if err != nil && fault.KindOf(err) == fault.Precondition {
		n.refusedOnce.Do(func() { close(n.refused) })
	}
}

func (n *node) joinProblem() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.problem
}

func (n *node) opened() *store.Store {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.store
}

// joinGroup makes this node a member of the Raft group, and its empty store, which the leader fills.
func (n *node) joinGroup(ctx context.Context) error {
	var joined *api.JoinResponse
	var key string
	err := n.eachManager(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		// The store of an autolocked swarm is sealed by the swarm's key from the first byte.
		unlock, err := api.NewControlClient(conn).GetUnlockKey(ctx, &api.GetUnlockKeyRequest{})
		if err != nil {
			return err
		}
		key = unlock.GetUnlockKey()
		joined, err = api.NewRaftClient(conn).Join(ctx, &api.JoinRequest{Address: n.membership.AdvertiseAddress, NodeId: n.identity.NodeID(), Protocol: store.Protocol})
		return err
	})
	if err != nil {
		return err
	}
	if err := n.takeKEK(ctx, key); err != nil {
		return err
	}
	disk := store.Disk{Dir: n.daemon.disk.path(storeDir), KEK: n.kek, Source: n.source}
	return store.Prepare(disk, n.identity.ClusterID(), joined)
}

// takeKEK chooses the key that seals the store to be: the swarm's unlock key, which then seals the node key too, or this node's
// own.
func (n *node) takeKEK(ctx context.Context, unlockKey string) error {
	var kek seal.Key
	var err error
	source := seal.SourceUnlockKey
	if unlockKey != "" {
		kek, err = seal.ParseUnlockKey(unlockKey)
	} else {
		kek, source, err = n.daemon.own.get(ctx)
	}
	if err == nil {
		err = n.keys.Protect(holdersOf(kek, source))
	}
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.kek, n.source, n.holds = kek, source, source
	return nil
}

// ownKey returns the node's own key: from memory while it seals the store, so that a TPM is asked at the start only.
func (n *node) ownKey(ctx context.Context) (seal.Key, seal.Source, error) {
	wanted := n.daemon.own.source(ctx)
	n.mu.Lock()
	kek, source := n.kek, n.source
	n.mu.Unlock()
	if source == wanted {
		return kek, source, nil
	}
	return n.daemon.own.get(ctx)
}

// reseal makes a key the one that opens this manager: its store and its node key.
func (n *node) reseal(s *store.Store, kek seal.Key, source seal.Source) error {
	n.mu.Lock()
	before := holdersOf(n.kek, n.source)
	n.mu.Unlock()
	resealed := false
	err := n.keys.reseal(before, holdersOf(kek, source), func() error {
		err := s.Reseal(kek, source)
		resealed = err == nil
		return err
	})
	if !resealed {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.source != source {
		n.logger.Info("the manager is sealed by another kind of key", "key", source.String())
	}
	n.kek, n.source, n.holds = kek, source, source
	if err != nil {
		return err
	}
	return n.daemon.own.keepOnly(source)
}

// dropStore forgets the store of a node that is no manager any more. The node key goes back to the node's own key first: no unlock
// key reaches it from now on.
func (n *node) dropStore(ctx context.Context) error {
	kek, source, err := n.ownKey(ctx)
	if err == nil {
		err = n.keys.Protect(holdersOf(kek, source))
	}
	if err != nil {
		return fmt.Errorf("keep the key of a former manager: %w", err)
	}
	n.mu.Lock()
	s := n.store
	n.store, n.kek, n.source, n.holds = nil, seal.Key{}, 0, source
	n.mu.Unlock()
	if err := discard(s); err != nil {
		return fmt.Errorf("close the store of a former manager: %w", err)
	}
	if err := os.RemoveAll(n.daemon.disk.path(storeDir)); err != nil {
		return fmt.Errorf("remove the store of a former manager: %w", err)
	}
	return n.daemon.disk.removeFormerStore()
}

// mayLeave refuses a manager that would leave without force.
func (n *node) mayLeave(force bool) error {
	if n.identity.Role() == api.Role_ROLE_MANAGER && !force {
		return fault.New(fault.Precondition, "%s", leaveWarning(n.opened()))
	}
	return nil
}

// leave ends the node's tasks and tells the others that it goes, as far as they hear it.
func (n *node) leave(ctx context.Context) {
	ending, cancel := context.WithTimeout(ctx, leavePatience)
	defer cancel()
	if err := n.agent.Leave(ending); err != nil {
		n.logger.Warn("tasks of the swarm that this node leaves did not end in time; they are killed", "error", err)
	}
	telling, cancel := context.WithTimeout(ctx, leavePatience) // however long the tasks took
	defer cancel()
	n.leaveGroup(telling)
}

// leaveGroup takes a manager out of the Raft group.
func (n *node) leaveGroup(ctx context.Context) {
	if n.identity.Role() != api.Role_ROLE_MANAGER {
		return
	}
	err := n.eachManager(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		_, err := api.NewRaftClient(conn).Leave(ctx, &api.LeaveRequest{NodeId: n.identity.NodeID()})
		return err
	})
	if err != nil {
		n.logger.Warn("the other managers don't know that this one leaves: remove it with `skep node demote` and `skep node rm`", "error", err)
	}
}

// leaveWarning is Docker's refusal of a manager that leaves without force, with the numbers.
func leaveWarning(s *store.Store) string {
	text := "You are attempting to leave the swarm on a node that is participating as a manager. "
	if s == nil {
		return text + "Use `--force` to suppress this message."
	}
	status := s.Status()
	voters, others := 0, 0
	for _, member := range status.Members {
		if member.Member.GetLearner() {
			continue
		}
		voters++
		if member.Reachable && member.Member.GetNodeId() != status.NodeID {
			others++
		}
	}
	switch {
	case voters <= 1:
		text += "Removing the last manager erases all current state of the swarm. "
	case status.Self && others < voters/2+1: // only the leader knows whom it reaches
		text += fmt.Sprintf("Removing this node leaves %d managers out of %d. Without a Raft quorum your swarm will be inaccessible. ", others, voters)
	default:
		text += "Demote it first: `skep node demote`. "
	}
	return text + "Use `--force` to suppress this message."
}
