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

// change applies a change of the membership, and reports whether it has any effect: nobody comes back after a removal.
func (m *members) change(kind raftpb.ConfChangeType, member *api.Member) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	id := member.GetRaftId()
	old := m.byID[id]
	switch {
	case m.removed[id]:
		return false
	case kind == raftpb.ConfChangeRemoveNode:
		delete(m.byID, id)
		m.removed[id] = true
	case kind == raftpb.ConfChangeAddLearnerNode && old != nil:
		return false // a repetition, perhaps after the learner became a voter
	case kind == raftpb.ConfChangeAddLearnerNode, kind == raftpb.ConfChangeAddNode && old != nil:
		member = proto.CloneOf(member)
		member.Learner = kind == raftpb.ConfChangeAddLearnerNode
		m.byID[id] = member
	default:
		return false
	}
	return true
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
