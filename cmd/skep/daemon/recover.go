package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
)

// forceNewCluster makes this manager the only one of its swarm, with all that its store holds: the way out when a majority of
// the managers is gone for ever. The caller holds changing.
func (d *Daemon) forceNewCluster(ctx context.Context, request *api.InitSwarmRequest) (*api.InitSwarmResponse, error) {
	m, n, err := d.lastManager()
	if err != nil {
		return nil, err
	}
	if wanted := request.GetAdvertiseAddress(); wanted != "" {
		if m.AdvertiseAddress, err = advertiseAddress(wanted, m.ListenAddress); err != nil {
			return nil, err
		}
		if m.AdvertiseOwn, err = ownAddress(m.AdvertiseAddress); err != nil {
			return nil, err
		}
	}
	n.mu.Lock()
	disk := store.Disk{Dir: d.disk.path(storeDir), KEK: n.kek, Source: n.source}
	n.mu.Unlock()
	unlock := n.unlockKey()
	n.stop()
	m.Managers = nil
	if err := errors.Join(store.ForceNewCluster(disk, m.AdvertiseAddress), d.disk.saveMembership(m)); err != nil {
		d.fell() // the node goes on as it was
		err = fmt.Errorf("make a new cluster of this manager's store: %w", err)
		if errors.Is(err, store.ErrInvalid) {
			err = fault.Wrap(fault.Precondition, err)
		}
		return nil, err
	}
	if err := d.comeBack(ctx, m, unlock); err != nil {
		return nil, err
	}
	if n, err = d.node(); err != nil {
		return nil, err
	}
	if err := n.await(ctx); err != nil {
		return nil, err
	}
	return &api.InitSwarmResponse{NodeId: n.identity.NodeID(), ManagerAddress: m.AdvertiseAddress}, nil
}

// lastManager returns this machine's membership and node, or says why it can't be the one manager that is left.
func (d *Daemon) lastManager() (membership, *node, error) {
	m, member, err := d.disk.membership()
	if err != nil {
		return membership{}, nil, err
	}
	if !member {
		return membership{}, nil, fault.New(fault.Precondition,
			"this node is not part of a swarm: --force-new-cluster goes on from a manager's own store; leave it out to make a new swarm")
	}
	n, err := d.node()
	if err != nil {
		return membership{}, nil, err
	}
	if _, err := os.Stat(d.disk.path(storeDir)); err != nil || n.identity.Role() != api.Role_ROLE_MANAGER {
		return membership{}, nil, fault.New(fault.Precondition,
			"this node is a worker and has no copy of the cluster store: run this on a machine that was a manager")
	}
	return m, n, nil
}
