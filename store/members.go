package store

import (
	"slices"
	"sync"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// members are the managers of the Raft group and those that were. Part of the replicated state. Reads are safe from any
// goroutine; the messages are immutable.
type members struct {
	mu      *sync.Mutex
	byID    map[uint64]*api.Member
	removed map[uint64]bool
}

func newMembers() members {
	return members{mu: new(sync.Mutex), byID: map[uint64]*api.Member{}, removed: map[uint64]bool{}}
}

// list returns the members ordered by raft id.
func (m *members) list() []*api.Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sorted()
}

func (m *members) sorted() []*api.Member {
	list := make([]*api.Member, 0, len(m.byID))
	for _, member := range m.byID {
		list = append(list, member)
	}
	slices.SortFunc(list, func(a, b *api.Member) int {
		if a.GetRaftId() < b.GetRaftId() {
			return -1
		}
		return 1
	})
	return list
}

// get returns a member, or nil.
func (m *members) get(raftID uint64) *api.Member {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.byID[raftID]
}

func (m *members) isRemoved(raftID uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.removed[raftID]
}

// former returns the other members of a member's node: what its manager was before it lost its disk.
func (m *members) former(now *api.Member) []*api.Member {
	return slices.DeleteFunc(m.list(), func(other *api.Member) bool {
		return other.GetNodeId() != now.GetNodeId() || other.GetRaftId() == now.GetRaftId()
	})
}

// understand reports whether the programs of all members understand a protocol.
func (m *members) understand(protocol uint32) bool {
	return !slices.ContainsFunc(m.list(), func(member *api.Member) bool { return member.GetProtocol() < protocol })
}

// memberChange is one change of the membership.
type memberChange struct {
	kind   raftpb.ConfChangeType
	member *api.Member
}

// change applies changes of the membership, all or none, and reports whether they have any effect: nobody comes back after a
// removal.
func (m *members) change(changes ...memberChange) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range changes {
		if !m.allows(c) {
			return false
		}
	}
	for _, c := range changes {
		id := c.member.GetRaftId()
		if c.kind == raftpb.ConfChangeRemoveNode {
			delete(m.byID, id)
			m.removed[id] = true
			continue
		}
		member := proto.CloneOf(c.member)
		member.Learner = c.kind == raftpb.ConfChangeAddLearnerNode
		m.byID[id] = member
	}
	return true
}

// allows reports whether a change would have an effect. Called with mu.
func (m *members) allows(c memberChange) bool {
	id := c.member.GetRaftId()
	switch {
	case m.removed[id]:
		return false
	case c.kind == raftpb.ConfChangeRemoveNode:
		return true
	case c.kind == raftpb.ConfChangeAddLearnerNode:
		return m.byID[id] == nil // else a repetition, perhaps after the learner became a voter
	}
	return c.kind == raftpb.ConfChangeAddNode && m.byID[id] != nil
}

func (m *members) save() ([]*api.Member, []uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var removed []uint64
	for id := range m.removed {
		removed = append(removed, id)
	}
	slices.Sort(removed)
	return m.sorted(), removed
}

func (m *members) load(list []*api.Member, removed []uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.byID)
	clear(m.removed)
	for _, member := range list {
		m.byID[member.GetRaftId()] = member
	}
	for _, id := range removed {
		m.removed[id] = true
	}
}
