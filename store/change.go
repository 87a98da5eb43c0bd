package store

import (
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/raftcore"
	"github.com/skep-io/skep/store/wal"
)

// proposeReplacement proposes that a learner takes over the vote that its manager had before, as one joint change: the group goes
// through a moment in which both the voters before and those after must agree, and leaves it by itself. At no moment does it
// need the vote of a manager that is gone more than it did before.
func (c *cluster) proposeReplacement(voter *api.Member, former []*api.Member) error {
	changes := []*raftpb.ConfChangeSingle{{Type: raftpb.ConfChangeAddNode.Enum(), NodeId: proto.Uint64(voter.GetRaftId())}}
	for _, member := range former {
		changes = append(changes, &raftpb.ConfChangeSingle{Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: proto.Uint64(member.GetRaftId())})
	}
	encoded, err := proto.Marshal(&api.MemberChanges{Members: append([]*api.Member{voter}, former...)})
	if err != nil {
		return fmt.Errorf("encode members: %w", err)
	}
	return c.step(raftcore.ProposeChange{Change: &raftpb.ConfChangeV2{Changes: changes, Context: encoded}})
}

// decodeChange returns the change that an entry of the log carries, and its parts: none when it ends a joint change.
func decodeChange(e *raftpb.Entry) (raftpb.ConfChangeI, []memberChange, error) {
	if e.GetType() == raftpb.EntryConfChange {
		var change raftpb.ConfChange
		var member api.Member
		err := errors.Join(proto.Unmarshal(e.GetData(), &change), proto.Unmarshal(change.GetContext(), &member))
		if err == nil && member.GetRaftId() != change.GetNodeId() {
			err = ErrInvalid
		}
		return &change, []memberChange{{change.GetType(), &member}}, err
	}
	var change raftpb.ConfChangeV2
	var members api.MemberChanges
	err := errors.Join(proto.Unmarshal(e.GetData(), &change), proto.Unmarshal(change.GetContext(), &members))
	if err != nil || len(members.GetMembers()) != len(change.GetChanges()) {
		return nil, nil, errors.Join(err, ErrInvalid)
	}
	var changes []memberChange
	for i, single := range change.GetChanges() {
		member := members.GetMembers()[i]
		if member.GetRaftId() != single.GetNodeId() {
			return nil, nil, ErrInvalid
		}
		changes = append(changes, memberChange{single.GetType(), member})
	}
	return &change, changes, nil
}

// applyChange applies an entry that changes the membership.
func (c *cluster) applyChange(e *raftpb.Entry) error {
	change, changes, err := decodeChange(e)
	if err != nil {
		return &wal.CorruptError{What: "log entry", Index: e.GetIndex(), Err: err}
	}
	if len(changes) == 0 {
		return c.leaveJoint(change)
	}
	if !c.machine.members.change(changes...) {
		return nil // refused by all members alike
	}
	state, err := c.core.Configure(change)
	if err != nil {
		return err
	}
	c.confState, c.storage.oldest = state, e.GetIndex()
	for _, one := range changes {
		c.logger.Info("raft member changed", "change", one.kind.String(), "node", one.member.GetNodeId(), "address", one.member.GetAddress())
	}
	c.membersChanged()
	if c.machine.members.isRemoved(c.id) {
		return ErrRemoved
	}
	return nil
}

// leaveJoint ends a joint change: from now on, the new voters decide alone.
func (c *cluster) leaveJoint(change raftpb.ConfChangeI) error {
	if len(c.confState.GetVotersOutgoing()) == 0 {
		return nil // left already
	}
	state, err := c.core.Configure(change)
	if err != nil {
		return err
	}
	c.confState = state
	return nil
}
