package store

import (
	"context"
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/raftcore"
)

// report notes the state of the group for Status, and wakes those who wait for the leader to settle.
func (c *cluster) report() {
	progress, leader := c.core.Progress(), c.core.Leader()
	var list []MemberStatus
	for _, member := range c.machine.members.list() {
		id := member.GetRaftId()
		p, known := progress[id]
		list = append(list, MemberStatus{
			Member: member, Leader: id == leader.ID, Match: p.Match,
			Reachable: p.Active || !known && leader.ID != 0 && (id == leader.ID || id == c.id),
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members, c.committed = list, c.core.Commit()
	if settled := c.core.Settled(); settled != c.settled {
		c.settled = settled
		c.wake()
	}
}

// wake tells those who wait for a change. The caller holds mu.
func (c *cluster) wake() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *cluster) status() Status {
	applied := c.machine.view().index
	c.mu.Lock()
	defer c.mu.Unlock()
	return Status{
		Leadership: c.lead, NodeID: c.nodeID, RaftID: c.id,
		Committed: max(c.committed, applied), Applied: applied, Members: slices.Clone(c.members), Settled: c.settled,
	}
}

// sink takes what the transport finds out.
type sink struct {
	c    *cluster
	done <-chan struct{}
}

func (s sink) put(in raftcore.Input) {
	select {
	case s.c.inputs <- in:
	case <-s.done:
	}
}

func (s sink) Snapshot(meta *raftpb.SnapshotMetadata) ([]byte, error) {
	return s.c.wal.ReadSnapshot(meta.GetIndex(), meta.GetTerm())
}
func (s sink) Unreachable(id uint64)           { s.put(raftcore.Unreachable{ID: id}) }
func (s sink) SnapshotSent(id uint64, ok bool) { s.put(raftcore.SnapshotSent{ID: id, OK: ok}) }
func (s sink) Removed() {
	select {
	case s.c.removal <- struct{}{}:
	default:
	}
}

// Deliver takes a message that another manager sent; node is the node id in its certificate. It returns ErrRemoved when the
// sender was removed from the group, and ErrInvalid when it is not who it says. It waits while the loop is busy.
func (s *Store) Deliver(ctx context.Context, node string, m *raftpb.Message) error {
	c := s.cluster
	if c == nil {
		return fmt.Errorf("deliver: %w: this store has no peers", ErrInvalid)
	}
	from := m.GetFrom()
	if c.machine.members.isRemoved(from) {
		return ErrRemoved
	}
	// A manager that has just joined may not know the sender yet; that it is a manager, its certificate says.
	if member := c.machine.members.get(from); member != nil && member.GetNodeId() != node {
		return fmt.Errorf("message of member %x: %w: it is node %s, but %s sent it", from, ErrInvalid, member.GetNodeId(), node)
	}
	select {
	case c.received <- raftcore.Receive{From: from, Message: m}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.stopped:
		return ErrStopped
	}
}

// Members returns the managers of the group, as this manager knows them, ordered by raft id. Empty for a local store.
func (s *Store) Members() []*api.Member { return s.machine.members.list() }
