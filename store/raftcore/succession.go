package raftcore

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3"
)

// Ticks of a succession.
const (
	// silenceTicks is how long a leader that can't be reached must have been silent before somebody stands for election: the
	// others refuse to vote until they have noticed, too.
	silenceTicks = electionTicks + 2
	// leaderlessTicks is how long nobody leads before somebody stands.
	leaderlessTicks = 6
	// turnTicks is how long a candidate has until it is the next one's turn.
	turnTicks = 3
)

// succession decides when a member stands for election. The library does that 1 to 2 s after it heard of a leader, at random, so that
// two members seldom stand at once; but one time in twenty or so they do, the votes are split, and all wait again. Where the
// transport says that the leader is gone, and while nobody leads, the voters take turns here, in the order of their ids. Whether
// one wins is for the others to say, as ever, and pre-vote makes trying harmless.
type succession struct {
	gone       bool // the leader could not be reached, and was not heard of since
	silent     int  // ticks since the leader was heard of
	leaderless int  // ticks since nobody leads
}

// heard notes a message of the leader.
func (s *succession) heard() { s.gone, s.silent = false, 0 }

// stands reports whether it is the turn of the voter with a rank, of some voters.
func (s *succession) stands(leads bool, rank, voters int) bool {
	if leads {
		return s.gone && s.silent == silenceTicks+rank*turnTicks
	}
	round := leaderlessTicks + voters*turnTicks
	return s.leaderless%round == leaderlessTicks+rank*turnTicks
}

// succeed notes that time passed, and stands for election when it is this member's turn.
func (c *Core) succeed() error {
	s := &c.succession
	status := c.rn.BasicStatus()
	if status.RaftState == raft.StateLeader {
		*s = succession{}
		return nil
	}
	if status.Lead != 0 {
		s.leaderless = 0
		if s.silent++; !s.gone {
			return nil
		}
	} else {
		s.leaderless++
	}
	voters := slices.DeleteFunc(slices.Sorted(maps.Keys(c.rn.Status().Config.Voters.IDs())), func(id uint64) bool { return id == status.Lead })
	if rank, votes := slices.BinarySearch(voters, c.id); votes && s.stands(status.Lead != 0, rank, len(voters)) {
		return dropped(c.rn.Campaign())
	}
	return nil
}
