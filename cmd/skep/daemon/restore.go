package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/backup"
	"github.com/skep-io/skep/manager/caserver"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
)

// RestoreBackup goes on with the swarm in a backup, with this node as its only manager.
func (d *Daemon) RestoreBackup(stream api.Daemon_RestoreBackupServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	// So that nobody sends a backup in vain; what counts is asked again when all of it is here.
	if _, member, err := d.disk.membership(); err != nil || member {
		return errors.Join(err, errMember)
	}
	options := first.GetOptions()
	header, state, problems, err := d.readBackup(options.GetSecret(), &chunks{rest: first.GetData(), next: func() ([]byte, error) {
		request, err := stream.Recv()
		return request.GetData(), err
	}})
	switch {
	case err != nil:
		return err
	case len(problems) > 0:
		return fault.New(fault.Invalid, "the backup is not sound, and is not restored: %s: `skep backup verify` lists all of %d problems",
			problems[0], len(problems))
	}
	response, err := d.restore(stream.Context(), options, header, state)
	if err != nil {
		return err
	}
	return stream.SendAndClose(response)
}

// restore makes this node the only manager of the swarm in a checked backup.
func (d *Daemon) restore(ctx context.Context, options *api.RestoreOptions, header *api.BackupHeader, state *api.StoreSnapshot,
) (*api.RestoreBackupResponse, error) {
	d.changing.Lock()
	defer d.changing.Unlock()
	m, listener, err := d.enter(options.GetListenAddress(), options.GetAdvertiseAddress())
	if err != nil {
		return nil, err
	}
	cluster := clusterIn(state)
	n, err := d.succeed(ctx, m, options, header, state)
	if err != nil {
		return nil, errors.Join(err, listener.Close(), d.undo(ctx, nil))
	}
	if err := d.begin(ctx, n, listener); err != nil {
		return nil, err
	}
	return &api.RestoreBackupResponse{
		Header: header, NodeId: n.identity.NodeID(), WorkerToken: cluster.GetJoinTokens().GetWorker(),
		ManagerAddress: m.AdvertiseAddress, UnlockKey: cluster.GetUnlockKey(),
	}, nil
}

// clusterIn returns the cluster object of a checked state.
func clusterIn(state *api.StoreSnapshot) *api.Cluster {
	for _, stored := range state.GetObjects() {
		if cluster := stored.GetCluster(); cluster != nil {
			return cluster
		}
	}
	return nil
}

// succeed writes the identity and the store of the only manager of a swarm that goes on from a state.
func (d *Daemon) succeed(ctx context.Context, m membership, options *api.RestoreOptions, header *api.BackupHeader,
	state *api.StoreSnapshot,
) (*node, error) {
	cluster := clusterIn(state)
	hostname, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("host name: %w", err)
	}
	record, credentials, err := caserver.Refound(time.Now(), cluster, hostname, options.GetAvailability())
	if errors.Is(err, ca.ErrShortLife) {
		return nil, fault.Wrap(fault.Precondition, err)
	}
	if err != nil {
		return nil, err
	}
	succession := backup.Succession{Header: header, Node: record, Now: time.Now()}
	if options.GetAutolock() {
		succession.UnlockKey = seal.NewKey().UnlockKey()
	}
	if err := backup.Succeed(state, succession); err != nil {
		return nil, err
	}
	kek, source, err := d.kekOf(ctx, cluster)
	if err != nil {
		return nil, err
	}
	return d.settle(m, credentials, kek, source, func(disk store.Disk, self *api.Member) error {
		return store.BootstrapFrom(disk, state, self)
	})
}

// kekOf returns the key that seals a manager of a cluster: the cluster's unlock key, or the node's own.
func (d *Daemon) kekOf(ctx context.Context, cluster *api.Cluster) (seal.Key, seal.Source, error) {
	if cluster.GetUnlockKey() == "" {
		return d.newKEK(ctx, false)
	}
	kek, err := seal.ParseUnlockKey(cluster.GetUnlockKey())
	return kek, seal.SourceUnlockKey, err
}
