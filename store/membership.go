package store

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/raftcore"
)

const (
	// promoteLag is how many entries a learner may lack to become a voter: it gets those before it matters.
	promoteLag = 64
	// retryChange is how often a change of the membership is proposed again: raft drops one while another is in the log.
	retryChange = 500 * time.Millisecond
)

// NewRaftID returns a random id that is not 0.
func NewRaftID() uint64 {
	var b [8]byte
	for {
		rand.Read(b[:]) // never fails, see crypto/rand
		// raft reserves the highest ids for its local threads.
		if id := binary.BigEndian.Uint64(b[:]) >> 1; id != 0 {
			return id
		}
	}
}

// Protocol is what this program understands of the log, see api.Member.
const Protocol = 2

// protocolJoint is the first protocol that has joint changes of the membership. What kinds of objects need, object.Kind says.
const protocolJoint = 1

// AddMember makes a manager a member, on the leader, and returns what Prepare needs there. It becomes a voter by itself once
// it has caught up. A member with the same node id is that manager before it lost its disk: it keeps its vote, so that the
// group is no smaller meanwhile, until the new member takes it over. The caller has checked that the address answers; protocol
// is that of the manager's program.
func (s *Store) AddMember(ctx context.Context, nodeID, address string, protocol uint32) (*api.JoinResponse, error) {
	c := s.cluster
	if c == nil {
		return nil, fmt.Errorf("add member: %w: this store has no peers", ErrInvalid)
	}
	if nodeID == "" || address == "" {
		return nil, fmt.Errorf("add member: %w: it needs a node id and an address", ErrInvalid)
	}
	if nodeID == c.nodeID {
		return nil, fmt.Errorf("add member %s: %w: it is this manager", nodeID, ErrInvalid)
	}
	if err := s.removeFormer(ctx, nodeID); err != nil {
		return nil, fmt.Errorf("replace member %s: %w", nodeID, err)
	}
	member := &api.Member{RaftId: NewRaftID(), NodeId: nodeID, Address: address, Learner: true, Protocol: protocol}
	err := c.change(ctx, raftpb.ConfChangeAddLearnerNode, member, func() bool {
		return c.machine.members.get(member.GetRaftId()) != nil
	})
	if err != nil {
		return nil, fmt.Errorf("add member %s: %w", nodeID, err)
	}
	return &api.JoinResponse{RaftId: member.GetRaftId(), Members: c.machine.members.list()}, nil
}

// removeFormer removes the members that a manager was before, but for one that votes, which is replaced later, if all members
// understand that.
func (s *Store) removeFormer(ctx context.Context, nodeID string) error {
	members := &s.cluster.machine.members
	for _, former := range members.list() {
		if former.GetNodeId() != nodeID || !former.GetLearner() && members.understand(protocolJoint) {
			continue
		}
		if err := s.RemoveMember(ctx, former.GetRaftId()); err != nil {
			return err
		}
	}
	return nil
}

// UpdateMember notes, on the leader, at which address a member is, and the protocol of its program. It returns ErrRemoved for a
// member that was removed, and ErrBusy for one that does not vote yet. The caller has checked that the address answers.
func (s *Store) UpdateMember(ctx context.Context, raftID uint64, nodeID, address string, protocol uint32) error {
	c := s.cluster
	if c == nil || nodeID == "" || address == "" {
		return fmt.Errorf("update member: %w: it needs peers, a node id and an address", ErrInvalid)
	}
	if c.machine.members.isRemoved(raftID) {
		return ErrRemoved
	}
	old := c.machine.members.get(raftID)
	switch {
	case old == nil || old.GetNodeId() != nodeID:
		return fmt.Errorf("update member %x: %w: node %s is no such member", raftID, ErrInvalid, nodeID)
	case old.GetLearner():
		return ErrBusy
	}
	member := proto.CloneOf(old)
	member.Address, member.Protocol = address, protocol
	// To add a voter once more changes nothing but its record, for programs of all ages.
	err := c.change(ctx, raftpb.ConfChangeAddNode, member, func() bool {
		now := c.machine.members.get(raftID)
		return now == nil || now.GetAddress() == address && now.GetProtocol() == protocol
	})
	if err != nil {
		return fmt.Errorf("update member %s: %w", nodeID, err)
	}
	return nil
}

// RemoveMember removes a manager from the group, on the leader; its raft id is refused for ever. It returns nil when there is
// no such member, and ErrQuorum when the others could not go on without it. Asked to remove the leader itself, it hands leadership over first and returns a
// *NotLeaderError: ask the new leader.
func (s *Store) RemoveMember(ctx context.Context, raftID uint64) error {
	c := s.cluster
	if c == nil {
		return fmt.Errorf("remove member: %w: this store has no peers", ErrInvalid)
	}
	if leadership, _ := c.leadership(); !leadership.Self {
		return &NotLeaderError{LeaderID: leadership.LeaderID, LeaderAddr: leadership.LeaderAddr}
	}
	member := c.machine.members.get(raftID)
	if member == nil {
		return nil
	}
	if err := s.Settle(ctx); err != nil {
		return err
	}
	if err := c.call(ctx, func() error { return c.quorumWithout(raftID) }); err != nil {
		return err
	}
	if raftID == c.id {
		if err := s.TransferLeadership(ctx); err != nil {
			return err
		}
		leadership, _ := c.leadership()
		return &NotLeaderError{LeaderID: leadership.LeaderID, LeaderAddr: leadership.LeaderAddr}
	}
	err := c.change(ctx, raftpb.ConfChangeRemoveNode, member, func() bool { return c.machine.members.isRemoved(raftID) })
	if err != nil {
		return fmt.Errorf("remove member %s: %w", member.GetNodeId(), err)
	}
	return nil
}

// quorumWithout returns ErrQuorum when the voters that answer would be no majority without a member. While a joint change is under
// way, the voters are those that it leads to.
func (c *cluster) quorumWithout(raftID uint64) error {
	voters, active := 0, 0
	progress := c.core.Progress()
	for _, id := range c.confState.GetVoters() {
		if id == raftID {
			continue
		}
		voters++
		if progress[id].Active {
			active++
		}
	}
	if quorum := voters/2 + 1; voters == 0 || active < quorum {
		return fmt.Errorf("%w: only %d of the %d other voting managers answer, %d are needed", ErrQuorum, active, voters, quorum)
	}
	return nil
}

// TransferLeadership hands leadership to the member that is furthest, and waits until another manager leads. It returns nil
// at once on a manager that does not lead, and ErrQuorum when there is nobody to take over.
func (s *Store) TransferLeadership(ctx context.Context) error {
	c := s.cluster
	if c == nil {
		return fmt.Errorf("transfer leadership: %w: nobody could take over", ErrQuorum)
	}
	for {
		leadership, changed := c.leadership()
		if !leadership.Self {
			if leadership.LeaderID != "" && leadership.LeaderID != c.nodeID {
				return nil
			}
		} else if err := c.call(ctx, c.transfer); err != nil {
			return fmt.Errorf("transfer leadership: %w", err)
		}
		if err := wait(ctx, changed, retryChange); err != nil {
			return err
		}
	}
}

// transfer asks the best successor to take over.
func (c *cluster) transfer() error {
	var best, match uint64
	progress := c.core.Progress()
	for _, id := range c.confState.GetVoters() {
		if p := progress[id]; id != c.id && p.Active && (best == 0 || p.Match > match || p.Match == match && id < best) {
			best, match = id, p.Match
		}
	}
	if best == 0 {
		return fmt.Errorf("%w: no other voting manager answers", ErrQuorum)
	}
	return c.step(raftcore.Transfer{To: best})
}

// wait waits for a change, for a while.
func wait(ctx context.Context, changed <-chan struct{}, patience time.Duration) error {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-changed:
	case <-timer.C:
	}
	return nil
}

// change proposes a change of the membership until it is done.
func (c *cluster) change(ctx context.Context, kind raftpb.ConfChangeType, member *api.Member, done func() bool) error {
	for {
		leadership, changed := c.leadership()
		if done() {
			return nil
		}
		if !leadership.Self {
			return &NotLeaderError{LeaderID: leadership.LeaderID, LeaderAddr: leadership.LeaderAddr, Uncertain: true}
		}
		err := c.call(ctx, func() error {
			if kind != raftpb.ConfChangeRemoveNode {
				if err := c.gate.admit(member, c.machine.view()); err != nil {
					return err
				}
			}
			return c.proposeChange(kind, member)
		})
		if err != nil {
			return err
		}
		if err := wait(ctx, changed, retryChange); err != nil {
			return err
		}
	}
}

func (c *cluster) proposeChange(kind raftpb.ConfChangeType, member *api.Member) error {
	encoded, err := proto.Marshal(member)
	if err != nil {
		return fmt.Errorf("encode member: %w", err)
	}
	return c.step(raftcore.ProposeChange{Change: &raftpb.ConfChange{
		Type: kind.Enum(), NodeId: proto.Uint64(member.GetRaftId()), Context: encoded,
	}})
}

// promote makes a learner that has caught up a voter. One whose node has a vote already, from before it lost its disk, takes that
// over in the same step.
func (c *cluster) promote() error {
	progress := c.core.Progress()
	if len(progress) == 0 {
		return nil
	}
	for _, member := range c.machine.members.list() {
		p := progress[member.GetRaftId()]
		if !p.Learner || !p.Active || !p.Replicating || p.Match+promoteLag < c.core.Commit() {
			continue
		}
		voter := proto.CloneOf(member)
		voter.Learner = false
		if former := c.machine.members.former(voter); len(former) > 0 {
			return c.proposeReplacement(voter, former)
		}
		return c.proposeChange(raftpb.ConfChangeAddNode, voter)
	}
	return nil
}
