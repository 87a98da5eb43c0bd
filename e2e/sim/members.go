package main

import (
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
)

// joinResponse is what a manager that joins gets from the leader.
type joinResponse = api.JoinResponse

// lose destroys a manager's disk, and makes it join again (Q3). One at a time: a majority keeps its disks.
func (n *node) lose() {
	if n.w.someoneJoins() {
		return
	}
	n.stop(false)
	n.wipe()
	n.join()
}

// leave makes a manager that is up leave the group, as a demotion does; then it joins again, as after a promotion.
func (n *node) leave() {
	if n.w.someoneJoins() {
		return
	}
	n.joining = true
	n.retry(func() bool {
		leader := n.w.leader()
		switch {
		case leader == nil:
			return false
		case leader == n:
			n.do(n.p.Transfer())
			return false
		case !leader.p.Removed(n.raftID):
			leader.remove(n.raftID)
			return false
		}
		n.stop(false)
		n.wipe()
		n.join()
		return true
	})
}

// someoneJoins reports whether a manager is not a voter, as far as is known, or may be about to lose its disk.
func (w *world) someoneJoins() bool {
	for _, n := range w.nodes {
		if n.joining || n.disk.flipped {
			return true
		}
	}
	leader := w.leader()
	if leader == nil {
		return true
	}
	voters := 0
	for _, m := range leader.p.Store().Members() {
		if !m.GetLearner() {
			voters++
		}
	}
	return voters != managers || len(leader.p.Store().Members()) != managers
}

// join makes a manager without a disk a member, under a new raft id.
func (n *node) join() {
	n.joining = true
	id := store.NewRaftID()
	if n.w.bug == sameID && n.raftID != 0 {
		id = n.raftID
	}
	n.retry(func() bool { return n.joined(id) })
}

// retry tries a step every half second until it reports the end.
func (n *node) retry(step func() bool) {
	n.w.after(n.w.between(100*time.Millisecond, time.Second), func() {
		if !step() {
			n.retry(step)
		}
	})
}

func (n *node) remove(raftID uint64) {
	for _, m := range n.p.Store().Members() {
		if m.GetRaftId() == raftID {
			n.do(n.p.RemoveMember(m))
		}
	}
}

// joined takes the next step of joining, on whoever leads, as AddMember does: the vote that the manager had stays until the new
// member takes it over, if all understand that.
func (n *node) joined(id uint64) bool {
	leader := n.w.leader()
	if leader == nil {
		return false
	}
	members, there, joint, votes := leader.p.Store().Members(), false, true, false
	for _, m := range members {
		there = there || m.GetRaftId() == id
		joint = joint && m.GetProtocol() >= store.Protocol
	}
	for _, m := range members {
		if m.GetNodeId() != n.name || m.GetRaftId() == id {
			continue
		}
		if m.GetLearner() || !joint {
			leader.remove(m.GetRaftId())
			return false
		}
		votes = true
	}
	if !there {
		leader.do(leader.p.AddMember(&api.Member{
			RaftId: id, NodeId: n.name, Address: n.name + ":1", Learner: true, Protocol: n.w.protocol,
		}))
		return false
	}
	if !n.prepare(&joinResponse{RaftId: id, Members: members}) {
		return false
	}
	if votes {
		n.w.faults["vote taken over"]++
	}
	delete(n.w.byRaft, n.raftID)
	n.raftID, n.joining = id, false
	n.w.byRaft[id] = n
	n.start()
	return true
}
