package store

import (
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/wal"
)

// BootstrapFrom makes the store of the only manager of a cluster that goes on from a state, such as that in a backup, which the
// store owns from then on. self is the manager; its raft id must be new to the cluster. The members in the state are refused
// from then on. After a crash there is either all of the store or none.
func BootstrapFrom(disk Disk, state *api.StoreSnapshot, self *api.Member) error {
	clusterID := state.GetClusterId()
	self = proto.CloneOf(self)
	self.Protocol = Protocol
	start, err := startFrom(state, self)
	if err != nil {
		return fmt.Errorf("start from a state at index %d: %w", state.GetIndex(), err)
	}
	identity := &api.JoinResponse{RaftId: self.GetRaftId(), Members: []*api.Member{self}}
	return wal.Create(disk.wal(), clusterID, disk.KEK, disk.Source, identity, start)
}

// startFrom returns a snapshot of a state whose only member is self.
func startFrom(state *api.StoreSnapshot, self *api.Member) (*raftpb.Snapshot, error) {
	m := newMachine(state.GetClusterId())
	b, err := build(state)
	if err != nil {
		return nil, err
	}
	if err := m.restore(b); err != nil {
		return nil, err
	}
	former, removed := m.members.save()
	for _, member := range former {
		removed = append(removed, member.GetRaftId())
	}
	for _, id := range removed {
		if id == self.GetRaftId() {
			return nil, fmt.Errorf("raft id %d: %w: it is that of a former member", id, ErrInvalid)
		}
	}
	m.members.load([]*api.Member{self}, removed)
	m.skip(m.index + 1) // so that no other log has the same entry at this index
	m.recovered(time.Now(), "Daemon.RestoreBackup")
	data, err := m.freeze().encode()
	if err != nil {
		return nil, err
	}
	return &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{
		Index: proto.Uint64(m.index), Term: proto.Uint64(firstTerm),
		ConfState: &raftpb.ConfState{Voters: []uint64{self.GetRaftId()}},
	}}, nil
}
