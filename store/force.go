package store

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/wal"
)

// ForceNewCluster makes a stopped manager the only one of its group, with all that its log holds, at an address. It is the
// way out when a majority of managers is gone for ever. The others may not come back: their raft ids are refused from then
// on. What the lost majority acknowledged and this manager did not receive is lost.
func ForceNewCluster(disk Disk, address string) error {
	w, state, err := wal.Open(disk.wal(), disk.KEK)
	if err != nil {
		return err
	}
	snapshot, term, err := replayAll(w, state, address)
	if err == nil {
		err = w.Install(snapshot, &raftpb.HardState{Term: &term, Vote: new(uint64), Commit: snapshot.GetMetadata().Index})
	}
	return errors.Join(err, w.Close())
}

// replayAll returns a snapshot of everything in the log, committed or not, whose only member is this manager.
func replayAll(w *wal.WAL, state *wal.State, address string) (*raftpb.Snapshot, uint64, error) {
	if state.Snapshot == nil {
		return nil, 0, fmt.Errorf("%w: this manager never received the state of the swarm", ErrInvalid)
	}
	m := newMachine(state.Cluster)
	if _, err := loadSnapshot(w, state, m); err != nil {
		return nil, 0, err
	}
	for _, e := range state.Entries {
		if err := m.replay(e); err != nil {
			return nil, 0, &wal.CorruptError{What: "log entry", Index: e.GetIndex(), Err: err}
		}
	}
	id := state.Identity.GetRaftId()
	self := &api.Member{RaftId: id, NodeId: nodeID(state.Identity), Address: address, Protocol: Protocol}
	_, removed := m.members.save()
	for _, other := range m.members.list() {
		if other.GetRaftId() != id {
			removed = append(removed, other.GetRaftId())
		}
	}
	m.members.load([]*api.Member{self}, removed)
	m.skip(m.index + 1) // so that no other log has the same entry at this index
	m.recovered(time.Now(), "Daemon.InitSwarm")
	data, err := m.freeze().encode()
	if err != nil {
		return nil, 0, err
	}
	term := state.HardState.GetTerm() + 1
	return &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{
		Index: proto.Uint64(m.index), Term: &term, ConfState: &raftpb.ConfState{Voters: []uint64{id}},
	}}, term, nil
}

// replay applies an entry outside of a group.
func (m *machine) replay(e *raftpb.Entry) error {
	switch {
	case e.GetIndex() <= m.index:
		return nil
	case e.GetType() != raftpb.EntryNormal:
		_, changes, err := decodeChange(e)
		if err != nil {
			return err
		}
		m.members.change(changes...)
	case len(e.GetData()) > 0:
		_, _, err := m.apply(e.GetIndex(), e.GetData())
		return err
	}
	m.skip(e.GetIndex())
	return nil
}
