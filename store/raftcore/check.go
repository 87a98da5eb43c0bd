package raftcore

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// check refuses messages that no correct peer sends, most of which would make the library panic.
func (c *Core) check(in Receive) error {
	m := in.Message
	if m.GetFrom() != in.From || in.From == 0 || in.From == c.id || raft.IsLocalMsgTarget(in.From) {
		return fmt.Errorf("%w: it claims to come from %x, but %x sent it", ErrRefused, m.GetFrom(), in.From)
	}
	if m.GetTo() != c.id {
		return fmt.Errorf("%w: it is for %x", ErrRefused, m.GetTo())
	}
	if len(m.GetResponses()) > 0 {
		return fmt.Errorf("%w: a local message", ErrRefused)
	}
	if m.GetType() == raftpb.MsgReadIndex {
		if len(m.GetEntries()) != 1 || m.GetEntries()[0] == nil {
			return fmt.Errorf("%w: a read without context", ErrRefused)
		}
		return nil
	}
	if m.GetTerm() == 0 {
		return fmt.Errorf("%w: no term", ErrRefused)
	}
	switch m.GetType() {
	case raftpb.MsgApp:
		return checkEntries(m)
	case raftpb.MsgSnap:
		return checkSnapshot(m)
	case raftpb.MsgHeartbeat:
		if m.GetCommit() > c.last && m.GetTerm() >= c.leader.Term {
			// A leader only says so of entries that this member acknowledged. To go on would be to refuse heartbeats for ever.
			return fmt.Errorf("%w: this manager acknowledged entry %d, but its log ends at %d, so its disk lost some: "+
				"`skep swarm rejoin` gets them from the other managers", ErrBroken, m.GetCommit(), c.last)
		}
	case raftpb.MsgAppResp:
		if !m.GetReject() && m.GetIndex() > c.last {
			return fmt.Errorf("%w: it acknowledges %d, but the log ends at %d", ErrRefused, m.GetIndex(), c.last)
		}
	case raftpb.MsgReadIndexResp:
		if len(m.GetEntries()) != 1 || m.GetEntries()[0] == nil {
			return fmt.Errorf("%w: a read without context", ErrRefused)
		}
	case raftpb.MsgVote, raftpb.MsgVoteResp, raftpb.MsgPreVote, raftpb.MsgPreVoteResp, raftpb.MsgHeartbeatResp, raftpb.MsgTimeoutNow:
	default:
		return fmt.Errorf("%w: %v is not for the network", ErrRefused, m.GetType())
	}
	return nil
}

// checkEntries makes sure that the entries follow each other and the message.
func checkEntries(m *raftpb.Message) error {
	if m.GetLogTerm() > m.GetTerm() {
		return fmt.Errorf("%w: entries of a later term", ErrRefused)
	}
	term := m.GetLogTerm()
	for i, e := range m.GetEntries() {
		if e == nil || e.GetIndex() != m.GetIndex()+1+uint64(i) || e.GetTerm() < term || e.GetTerm() > m.GetTerm() || e.GetTerm() == 0 {
			return fmt.Errorf("%w: entry %d does not follow", ErrRefused, i)
		}
		term = e.GetTerm()
	}
	return nil
}

func checkSnapshot(m *raftpb.Message) error {
	meta := m.GetSnapshot().GetMetadata()
	if meta.GetIndex() == 0 || meta.GetTerm() == 0 || meta.GetTerm() > m.GetTerm() || len(meta.GetConfState().GetVoters()) == 0 {
		return fmt.Errorf("%w: an incomplete snapshot", ErrRefused)
	}
	return nil
}
