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
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/caserver"
	"github.com/skep-io/skep/manager/control"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
)

const (
	// joinPatience bounds a join, as Docker's: what answers at all answers sooner.
	joinPatience = 20 * time.Second
	// leavePatience bounds what a leaving node tells the others: it leaves whether they hear it or not.
	leavePatience = 5 * time.Second
)

// errLeft is why a join ends that the user does not want any more.
var errLeft = errors.New("`skep swarm leave` came in between")

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

// JoinSwarm makes this node a member of a swarm.
func (d *Daemon) JoinSwarm(ctx context.Context, request *api.JoinSwarmRequest) (*api.JoinSwarmResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if len(request.GetRemoteAddresses()) == 0 {
		return nil, fault.New(fault.Invalid, "at least 1 remote address is required: give HOST:PORT of a manager")
	}
	secret, err := token.Parse(request.GetToken())
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	m, listener, err := d.enter(request.GetListenAddress(), request.GetAdvertiseAddress())
	if err != nil {
		return nil, err
	}
	ctx, joined := d.joinUnderWay(ctx)
	defer joined()
	n, err := d.joinAs(ctx, m, request, secret)
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	n.listener = listener
	if err = d.launch(ctx, n); err == nil {
		err = n.await(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, d.undo(ctx, n))
	}
	return &api.JoinSwarmResponse{NodeId: n.identity.NodeID(), Role: n.identity.Role()}, nil
}

// joinUnderWay bounds a join, and lets LeaveSwarm end it.
func (d *Daemon) joinUnderWay(ctx context.Context) (context.Context, func()) {
	ctx, cancelTime := context.WithTimeoutCause(ctx, joinPatience, errors.New("the managers did not answer in time"))
	ctx, cancel := context.WithCancelCause(ctx)
	d.setJoining(cancel)
	return ctx, func() {
		d.setJoining(nil)
		cancel(nil)
		cancelTime()
	}
}

func (d *Daemon) setJoining(cancel context.CancelCauseFunc) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.joining = cancel
}

// joinAs gets an identity in a swarm and keeps it. From then on the node belongs to the swarm, also after a crash.
func (d *Daemon) joinAs(ctx context.Context, m membership, request *api.JoinSwarmRequest, secret token.Token) (*node, error) {
	credentials, manager, err := d.join(ctx, request, secret)
	if err != nil {
		return nil, err
	}
	m.Managers = []string{manager}
	kek, source, err := d.newKEK(ctx, false)
	keys := openKeys(d.cfg.DataDir, holdersOf(kek, source))
	if err == nil {
		err = errors.Join(keys.Save(credentials), d.disk.saveMembership(m))
	}
	if err != nil {
		return nil, errors.Join(err, d.undo(ctx, nil))
	}
	return d.newNode(m, keys, ca.NewIdentity(credentials), kek, source), nil
}

// join tries the managers in turn, again while they are only busy, and returns the credentials that one of them gave. All tries
// have one key, so that an answer that was lost makes no second node.
func (d *Daemon) join(ctx context.Context, request *api.JoinSwarmRequest, secret token.Token) (ca.Credentials, string, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return ca.Credentials{}, "", fmt.Errorf("host name: %w", err)
	}
	key, err := ca.NewKey()
	if err != nil {
		return ca.Credentials{}, "", err
	}
	for {
		var errs []error
		for _, remote := range request.GetRemoteAddresses() {
			address := withDefaultPort(remote)
			credentials, err := ca.Join(ctx, ca.JoinConfig{
				Address: address, Token: secret, Availability: request.GetAvailability(), Hostname: hostname, Key: key,
			})
			if err == nil {
				return credentials, address, nil
			}
			errs = append(errs, fmt.Errorf("%s: %w", address, err))
		}
		err := errors.Join(errs...)
		if !errors.Is(err, ca.ErrBusy) {
			return ca.Credentials{}, "", joinFault(ctx, err)
		}
		select {
		case <-ctx.Done():
			return ca.Credentials{}, "", joinFault(ctx, err)
		case <-time.After(rejoinPause):
		}
	}
}

// joinFault gives a refused join its kind.
func joinFault(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errLeft) || errors.Is(cause, context.Canceled) {
		return fault.New(fault.Unavailable, "the join was ended: %w", cause)
	}
	for _, row := range []struct {
		sentinel error
		kind     fault.Kind
	}{
		{token.ErrOtherRoot, fault.Invalid},
		{token.ErrWrongSecret, fault.PermissionDenied},
		{token.ErrMissing, fault.Invalid},
		{ca.ErrTooManyTries, fault.Exhausted},
		{ca.ErrBusy, fault.Unavailable},
		{ca.ErrUnreachable, fault.Unavailable},
		{ca.ErrBadServer, fault.Invalid},
	} {
		if errors.Is(err, row.sentinel) {
			return fault.Wrap(row.kind, err)
		}
	}
	return err
}

// LeaveSwarm ends this node's tasks and forgets the swarm, or ends a join that is under way.
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
		if joining != nil {
			return &api.LeaveSwarmResponse{}, nil
		}
		return nil, errNotMember
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
