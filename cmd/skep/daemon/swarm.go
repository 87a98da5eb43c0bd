package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/keyfile"
	"github.com/skep-io/skep/ca/token"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/caserver"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
	"github.com/skep-io/skep/store/wal"
)

const (
	// joinPatience bounds a join, as Docker's: what answers at all answers sooner.
	joinPatience = 20 * time.Second
	// leavePatience bounds what a leaving node tells the others: it leaves whether they hear it or not.
	leavePatience = 5 * time.Second
)

// The defaults of a cluster, which are Docker's.
const (
	defaultHeartbeat        = 5 * time.Second
	defaultTaskHistory      = 5
	defaultSnapshotInterval = 10000
)

// InitSwarm makes a swarm of which this node is the first manager.
func (d *Daemon) InitSwarm(ctx context.Context, request *api.InitSwarmRequest) (*api.InitSwarmResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	m, err := d.enter(request.GetListenAddress(), request.GetAdvertiseAddress())
	if err != nil {
		return nil, err
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
	kek, source, err := d.newKEK(request.GetAutolock())
	if err != nil {
		return nil, err
	}
	if source == seal.SourceUnlockKey {
		founding.Cluster.UnlockKey = kek.UnlockKey()
	}
	n, err := d.found(m, founding, kek, source)
	if err == nil {
		err = d.launch(ctx, n)
	}
	if err == nil {
		err = n.await(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, d.undo(n))
	}
	return &api.InitSwarmResponse{
		NodeId: n.identity.NodeID(), WorkerToken: founding.Cluster.GetJoinTokens().GetWorker(),
		ManagerAddress: m.AdvertiseAddress, UnlockKey: founding.Cluster.GetUnlockKey(),
	}, nil
}

// enter checks that the node may enter a swarm, and returns its addresses.
func (d *Daemon) enter(listen, advertise string) (membership, error) {
	if _, member, err := d.disk.membership(); err != nil || member {
		return membership{}, errors.Join(err, errMember)
	}
	listen, err := listenAddress(listen)
	if err != nil {
		return membership{}, err
	}
	advertise, err = advertiseAddress(advertise, listen)
	if err != nil {
		return membership{}, err
	}
	return membership{ListenAddress: listen, AdvertiseAddress: advertise}, nil
}

// clusterSpec returns the spec of a new cluster with Docker's defaults.
func clusterSpec(request *api.InitSwarmRequest) (*api.ClusterSpec, error) {
	spec := &api.ClusterSpec{
		Annotations:         &api.Annotations{Name: "default"},
		CertExpiry:          durationpb.New(ca.DefaultLife),
		DispatcherHeartbeat: durationpb.New(defaultHeartbeat),
		TaskHistoryLimit:    defaultTaskHistory,
		SnapshotInterval:    defaultSnapshotInterval,
		Autolock:            request.GetAutolock(),
	}
	if life := request.GetCertExpiry(); life != nil {
		if err := ca.CheckLife(life.AsDuration()); err != nil {
			return nil, fault.Wrap(fault.Invalid, err)
		}
		spec.CertExpiry = life
	}
	if period := request.GetDispatcherHeartbeat(); period != nil {
		if period.AsDuration() <= 0 {
			return nil, fault.New(fault.Invalid, "dispatcher heartbeat period must be a positive duration, such as 5s")
		}
		spec.DispatcherHeartbeat = period
	}
	if request.TaskHistoryLimit != nil {
		spec.TaskHistoryLimit = request.GetTaskHistoryLimit()
	}
	if request.GetSnapshotInterval() != 0 {
		spec.SnapshotInterval = request.GetSnapshotInterval()
	}
	return spec, nil
}

// newKEK returns the key that seals a new store: one that people keep, or one in a file.
func (d *Daemon) newKEK(autolock bool) (seal.Key, seal.Source, error) {
	if autolock {
		return seal.NewKey(), seal.SourceUnlockKey, nil
	}
	kek, err := seal.KeyFile(vfs.OS{}, d.disk.path(keyFile))
	return kek, seal.SourceKeyFile, err
}

// found writes the identity and the store of a first manager. The membership comes last: without it nothing counts.
func (d *Daemon) found(m membership, founding caserver.Founding, kek seal.Key, source seal.Source) (*node, error) {
	keys := keyfile.Open(d.cfg.DataDir, nil)
	if err := keys.Save(founding.Credentials); err != nil {
		return nil, err
	}
	self := &api.Member{RaftId: store.NewRaftID(), NodeId: founding.Node.GetId(), Address: m.AdvertiseAddress}
	disk := store.Disk{Dir: d.disk.path(storeDir), KEK: kek, Source: source}
	if err := store.Bootstrap(disk, founding.Cluster.GetId(), self); err != nil {
		return nil, err
	}
	if err := d.disk.saveMembership(m); err != nil {
		return nil, err
	}
	n := d.newNode(m, keys, ca.NewIdentity(founding.Credentials), kek, source)
	n.founding = &founding
	return n, nil
}

// undo forgets a swarm that this node could not enter.
func (d *Daemon) undo(n *node) error {
	if n != nil {
		n.stop()
	}
	d.mu.Lock()
	d.broken = nil
	d.mu.Unlock()
	return d.disk.forget()
}

// JoinSwarm makes this node a member of a swarm.
func (d *Daemon) JoinSwarm(ctx context.Context, request *api.JoinSwarmRequest) (*api.JoinSwarmResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	m, err := d.enter(request.GetListenAddress(), request.GetAdvertiseAddress())
	if err != nil {
		return nil, err
	}
	if len(request.GetRemoteAddresses()) == 0 {
		return nil, fault.New(fault.Invalid, "at least 1 remote address is required: give HOST:PORT of a manager")
	}
	secret, err := token.Parse(request.GetToken())
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	d.setPending(true)
	defer d.setPending(false)
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	credentials, manager, err := d.join(ctx, request, secret)
	if err != nil {
		return nil, err
	}
	m.Managers = []string{manager}
	keys := keyfile.Open(d.cfg.DataDir, nil)
	if err := errors.Join(keys.Save(credentials), d.disk.saveMembership(m)); err != nil {
		return nil, errors.Join(err, d.undo(nil))
	}
	kek, source, err := d.newKEK(false)
	if err != nil {
		return nil, errors.Join(err, d.undo(nil))
	}
	n := d.newNode(m, keys, ca.NewIdentity(credentials), kek, source)
	if err = d.launch(ctx, n); err == nil {
		err = n.await(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, d.undo(n))
	}
	return &api.JoinSwarmResponse{NodeId: n.identity.NodeID(), Role: n.identity.Role()}, nil
}

// join tries the managers in turn and returns the credentials that one of them gave.
func (d *Daemon) join(ctx context.Context, request *api.JoinSwarmRequest, secret token.Token) (ca.Credentials, string, error) {
	hostname, err := os.Hostname()
	if err != nil {
		return ca.Credentials{}, "", fmt.Errorf("host name: %w", err)
	}
	var errs []error
	for _, remote := range request.GetRemoteAddresses() {
		address := withDefaultPort(remote)
		credentials, err := ca.Join(ctx, ca.JoinConfig{
			Address: address, Token: secret, Availability: request.GetAvailability(), Hostname: hostname,
		})
		if err == nil {
			return credentials, address, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", address, err))
	}
	return ca.Credentials{}, "", joinFault(errors.Join(errs...))
}

// joinFault gives a refused join its kind.
func joinFault(err error) error {
	for _, row := range []struct {
		sentinel error
		kind     fault.Kind
	}{
		{token.ErrOtherRoot, fault.Invalid},
		{token.ErrWrongSecret, fault.PermissionDenied},
		{token.ErrMissing, fault.Invalid},
		{ca.ErrTooManyTries, fault.Exhausted},
		{ca.ErrUnreachable, fault.Unavailable},
		{ca.ErrBadServer, fault.Invalid},
	} {
		if errors.Is(err, row.sentinel) {
			return fault.Wrap(row.kind, err)
		}
	}
	return err
}

func (d *Daemon) setPending(pending bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pending = pending
}

// LeaveSwarm ends this node's tasks and forgets the swarm.
func (d *Daemon) LeaveSwarm(ctx context.Context, request *api.LeaveSwarmRequest) (*api.LeaveSwarmResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	if _, member, err := d.disk.membership(); err == nil && !member {
		return nil, errNotMember
	}
	n, err := d.node()
	if err != nil && !request.GetForce() {
		return nil, fmt.Errorf("%w: `skep swarm leave --force` forgets the swarm all the same", err)
	}
	if n != nil {
		if err := n.leave(ctx, request.GetForce()); err != nil {
			return nil, err
		}
		n.stop()
	}
	if err := d.endContainers(ctx); err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.locked, d.broken = false, nil
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
		return nil, err
	case !member:
		return nil, errNotMember
	case !locked:
		return nil, fault.New(fault.Precondition, "swarm is not locked")
	}
	kek, err := seal.ParseUnlockKey(request.GetUnlockKey())
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err)
	}
	if err := d.comeBackWith(ctx, m, kek, seal.SourceUnlockKey); err != nil {
		if errors.Is(err, seal.ErrWrongKey) {
			return nil, fault.New(fault.PermissionDenied, "invalid key: it does not open this manager's store")
		}
		return nil, err
	}
	return &api.UnlockSwarmResponse{}, nil
}

// comeBack starts the node that this machine was before a restart. A store that needs the unlock key makes it keyfile.ErrLocked.
func (d *Daemon) comeBack(ctx context.Context, m membership) error {
	_, source, err := store.Inspect(vfs.OS{}, d.disk.path(storeDir))
	if err != nil && !errors.Is(err, wal.ErrNone) {
		return err
	}
	if source == seal.SourceUnlockKey {
		return keyfile.ErrLocked
	}
	kek, source, err := d.newKEK(false)
	if err != nil {
		return err
	}
	return d.comeBackWith(ctx, m, kek, source)
}

func (d *Daemon) comeBackWith(ctx context.Context, m membership, kek seal.Key, source seal.Source) error {
	keys := keyfile.Open(d.cfg.DataDir, nil)
	identity, err := identityOf(keys)
	if err != nil {
		return err
	}
	n := d.newNode(m, keys, identity, kek, source)
	if err := n.openStore(); err != nil {
		return err
	}
	return d.launch(ctx, n)
}
