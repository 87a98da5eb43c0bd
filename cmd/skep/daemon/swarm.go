package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/keyfile"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/caserver"
	"github.com/skep-io/skep/manager/control"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
)

// leavePatience bounds what a leaving node tells the others: it leaves whether they hear it or not.
const leavePatience = 5 * time.Second

// InitSwarm makes a swarm of which this node is the first manager.
func (d *Daemon) InitSwarm(ctx context.Context, request *api.InitSwarmRequest) (*api.InitSwarmResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if request.GetForceNewCluster() {
		return d.forceNewCluster(ctx, request)
	}
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("host name: %w", err)
	}
	spec, err := clusterSpec(request)
	if err != nil {
		return nil, err
	}
	founding, err := caserver.Found(time.Now(), caserver.FoundConfig{Spec: spec, Hostname: hostname, Availability: request.GetAvailability()})
	if errors.Is(err, ca.ErrShortLife) {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if err != nil {
		return nil, err
	}
	m, listener, err := d.enter(request.GetListenAddress(), request.GetAdvertiseAddress())
	if err != nil {
		return nil, err
	}
	n, err := d.found(ctx, m, &founding, request.GetAutolock())
	if err != nil {
		return nil, errors.Join(err, listener.Close(), d.undo(ctx, nil))
	}
	if err := d.begin(ctx, n, listener); err != nil {
		return nil, err
	}
	return &api.InitSwarmResponse{
		NodeId: n.identity.NodeID(), WorkerToken: founding.Cluster.GetJoinTokens().GetWorker(),
		ManagerAddress: m.AdvertiseAddress, UnlockKey: founding.Cluster.GetUnlockKey(),
	}, nil
}

// begin starts the first manager of a swarm, and makes it a member for good once it takes part. When that fails, nothing of it is
// left.
func (d *Daemon) begin(ctx context.Context, n *node, listener net.Listener) error {
	n.listener = listener
	err := d.launch(ctx, n)
	if err == nil {
		err = n.await(ctx)
	}
	if err == nil {
		// The membership comes last: without it nothing counts, and from now on all of it is there.
		err = n.saveMembership()
	}
	if err != nil {
		return errors.Join(err, d.undo(ctx, n))
	}
	d.endApplication()
	return nil
}

// enter checks that the node may enter a swarm, and returns its addresses and the socket that listens on them.
func (d *Daemon) enter(wantedListen, wantedAdvertise string) (membership, net.Listener, error) {
	if _, member, err := d.disk.membership(); err != nil || member {
		return membership{}, nil, errors.Join(err, errMember)
	}
	listen, err := listenAddress(wantedListen)
	if err != nil {
		return membership{}, nil, err
	}
	advertise, err := advertiseAddress(cmp.Or(wantedAdvertise, d.cfg.AdvertiseAddress), listen)
	if err != nil {
		return membership{}, nil, err
	}
	listener, err := d.listen(listen)
	if err != nil {
		return membership{}, nil, err
	}
	own, err := ownAddress(advertise)
	if err == nil && !own {
		d.logger.Warn("the advertised address is not one of this machine's: other nodes must reach this one there all the same", "address", advertise)
	}
	return membership{ListenAddress: listen, AdvertiseAddress: advertise, AdvertiseOwn: own}, listener, nil
}

// clusterSpec returns the spec of a new cluster with Docker's defaults.
func clusterSpec(request *api.InitSwarmRequest) (*api.ClusterSpec, error) {
	spec := control.DefaultClusterSpec()
	spec.Autolock = request.GetAutolock()
	if life := request.GetCertExpiry(); life != nil {
		if err := ca.CheckLife(life.AsDuration()); err != nil {
			return nil, fault.Wrap(fault.Invalid, err)
		}
		spec.CertExpiry = life
	}
	if period := request.GetDispatcherHeartbeat(); period != nil {
		spec.DispatcherHeartbeat = period
	}
	if request.TaskHistoryLimit != nil {
		spec.TaskHistoryLimit = request.GetTaskHistoryLimit()
	}
	if age := request.GetDataKeyRotation(); age != nil {
		spec.DataKeyRotation = age
	}
	if request.GetSnapshotInterval() != 0 {
		spec.SnapshotInterval = request.GetSnapshotInterval()
	}
	spec.BackupInterval, spec.BackupDir = request.GetBackupInterval(), request.GetBackupDir()
	if n := request.GetBackupRetention(); n > 0 {
		spec.BackupRetention = n
	}
	return spec, control.CheckClusterSpec(spec)
}

// newKEK returns the key that seals a new store: one that people keep, or the node's own.
func (d *Daemon) newKEK(ctx context.Context, autolock bool) (seal.Key, seal.Source, error) {
	if autolock {
		return seal.NewKey(), seal.SourceUnlockKey, nil
	}
	return d.own.get(ctx)
}

// found writes the identity and the store of a first manager.
func (d *Daemon) found(ctx context.Context, m membership, founding *caserver.Founding, autolock bool) (*node, error) {
	kek, source, err := d.newKEK(ctx, autolock)
	if err != nil {
		return nil, err
	}
	if autolock {
		founding.Cluster.UnlockKey = kek.UnlockKey()
	}
	n, err := d.settle(m, founding.Credentials, kek, source, func(disk store.Disk, self *api.Member) error {
		return store.Bootstrap(disk, founding.Cluster.GetId(), self)
	})
	if err != nil {
		return nil, err
	}
	n.founding = founding
	return n, nil
}

// settle writes the identity of the first manager of a swarm, and its store by the function given.
func (d *Daemon) settle(m membership, credentials ca.Credentials, kek seal.Key, source seal.Source,
	makeStore func(store.Disk, *api.Member) error,
) (*node, error) {
	keys := openKeys(d.cfg.DataDir, holdersOf(kek, source))
	if err := keys.Save(credentials); err != nil {
		return nil, err
	}
	self := &api.Member{RaftId: store.NewRaftID(), NodeId: credentials.Name().NodeID, Address: m.AdvertiseAddress}
	if err := makeStore(store.Disk{Dir: d.disk.path(storeDir), KEK: kek, Source: source}, self); err != nil {
		return nil, err
	}
	n := d.newNode(m, keys, ca.NewIdentity(credentials), kek, source)
	n.first = true
	return n, nil
}

// undo forgets a swarm that this node could not enter; n is nil if it came to no node. A caller who went away does not stop it.
func (d *Daemon) undo(ctx context.Context, n *node) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leavePatience)
	defer cancel()
	if n != nil {
		if !n.first && n.opened() != nil {
			n.leaveGroup(ctx)
		}
		n.stop()
	}
	d.mu.Lock()
	d.broken, d.unlock = nil, seal.Key{}
	d.mu.Unlock()
	return errors.Join(d.clearContainers(ctx), d.disk.forget())
}

// LeaveSwarm ends this node's tasks and forgets the swarm, or ends a join that is under way or waits.
func (d *Daemon) LeaveSwarm(ctx context.Context, request *api.LeaveSwarmRequest) (*api.LeaveSwarmResponse, error) {
	d.mu.Lock()
	joining := d.joining
	d.mu.Unlock()
	if joining != nil {
		joining(errLeft)
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	m, member, err := d.disk.membership()
	if err == nil && !member {
		waited, err := d.forgetApplicant()
		if joining != nil || waited {
			return &api.LeaveSwarmResponse{}, err
		}
		return nil, errors.Join(errNotMember, err)
	}
	n, err := d.node()
	switch {
	case err != nil && !request.GetForce():
		return nil, fmt.Errorf("%w: `skep swarm leave --force` forgets the swarm all the same", err)
	case err == nil:
		if err := n.mayLeave(request.GetForce()); err != nil {
			return nil, err
		}
	}
	m.Leaving = true
	if n != nil {
		err = n.saveLeaving()
	} else {
		err = d.disk.saveMembership(m)
	}
	if err != nil {
		return nil, err
	}
	if n != nil {
		n.leave(ctx)
		n.stop()
	}
	if err := d.clearContainers(ctx); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.locked, d.broken, d.unlock = false, nil, seal.Key{}
	d.mu.Unlock()
	return &api.LeaveSwarmResponse{}, d.disk.forget()
}

// UnlockSwarm gives a locked manager its key.
func (d *Daemon) UnlockSwarm(ctx context.Context, request *api.UnlockSwarmRequest) (*api.UnlockSwarmResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	d.mu.Lock()
	locked := d.locked
	d.mu.Unlock()
	m, member, err := d.disk.membership()
	switch {
	case err != nil:
		return nil, fault.Wrap(fault.Precondition, err)
	case !member:
		return nil, errNotMember
	case !locked:
		return nil, fault.New(fault.Precondition, "swarm is not locked")
	}
	kek, err := seal.ParseUnlockKey(request.GetUnlockKey())
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if err := d.comeBack(ctx, m, kek); err != nil {
		if errors.Is(err, keyfile.ErrLocked) {
			return nil, fault.New(fault.PermissionDenied, "invalid key: it does not open this manager; "+
				"on another manager `skep swarm unlock-key` shows the present one, and one from before a rotation may be needed here. "+
				"If it is the right one, the store's key ring is damaged: `skep swarm rejoin --force` gets the store from the other managers")
		}
		d.unlockedButBroken(kek, err)
		return nil, err
	}
	return &api.UnlockSwarmResponse{}, nil
}

// unlockedButBroken notes that a node's key opened, but its store can't be used: it waits for another key no more.
func (d *Daemon) unlockedButBroken(kek seal.Key, err error) {
	if !damaged(err) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.locked, d.unlock, d.broken = false, kek, err
}
