package store

import (
	"context"

	"github.com/skep-io/skep/store/raftcore"
)

// proposal is a transaction on its way.
type proposal struct {
	prepared
	done chan outcome // holds one
}

type outcome struct {
	result result
	err    error
}

func (c *cluster) propose(ctx context.Context, t prepared) (result, error) {
	p := &proposal{prepared: t, done: make(chan outcome, 1)}
	select {
	case c.proposals <- p:
	case <-ctx.Done():
		return result{}, context.Cause(ctx)
	case <-c.stopped:
		return result{}, ErrStopped
	}
	select {
	case o := <-p.done:
		return o.result, o.err
	case <-ctx.Done():
		return result{}, context.Cause(ctx)
	case <-c.stopped:
		return result{}, ErrStopped
	}
}

// maxGroups is how many groups of proposals are on their way at once. Two keep disk and network busy; with more, the groups are
// smaller, and each costs every manager an entry.
const maxGroups = 2

// takesProposals reports whether the next group may go: otherwise it grows.
func (c *cluster) takesProposals() bool { return c.writing == 0 && c.groups < maxGroups }

// group proposes a transaction, and those that wait behind it, as one entry, or more where one would be too large.
func (c *cluster) group(p *proposal) error {
	for p != nil {
		var members []*proposal
		size := 0
		for p != nil && (len(members) == 0 || size+len(p.encoded)+entryOverhead <= groupSize) {
			if err := c.gate.propose(p.protocol, &c.machine.members); err != nil {
				p.done <- outcome{err: err}
			} else {
				members, size = append(members, p), size+len(p.encoded)+transactionOverhead
			}
			select {
			case p = <-c.proposals:
			default:
				p = nil
			}
		}
		if len(members) == 0 {
			continue
		}
		record := make([]byte, 0, size)
		for _, member := range members {
			record = appendTransaction(record, member.encoded)
		}
		if err := c.proposeRecord(record, members); err != nil {
			return err
		}
	}
	return nil
}

func (c *cluster) proposeRecord(record []byte, members []*proposal) error {
	for _, p := range members {
		c.pending[p.requestID] = append(c.pending[p.requestID], p)
	}
	effects, err := c.core.Step(raftcore.Propose{Data: record})
	if fatal(err) != nil {
		return err
	}
	if err != nil {
		refusal := c.notLeader(false)
		if c.core.Leader().Self {
			refusal = ErrBusy
		}
		for _, p := range members {
			c.fail(p, refusal)
		}
	} else {
		c.groups++
	}
	return c.act(effects)
}

// fail takes a proposal back that is the last with its request id.
func (c *cluster) fail(p *proposal, err error) {
	waiting := c.pending[p.requestID]
	for i, other := range waiting {
		if other == p {
			waiting = append(waiting[:i:i], waiting[i+1:]...)
			break
		}
	}
	c.pending[p.requestID] = waiting
	if len(waiting) == 0 {
		delete(c.pending, p.requestID)
	}
	p.done <- outcome{err: err}
}

func (c *cluster) notLeader(uncertain bool) error {
	leader := c.machine.members.get(c.core.Leader().ID)
	if c.core.Leader().Self {
		leader = nil
	}
	return &NotLeaderError{LeaderID: leader.GetNodeId(), LeaderAddr: leader.GetAddress(), Uncertain: uncertain}
}

// answer tells the caller of a transaction what became of it, if the caller is here.
func (c *cluster) answer(r result) {
	waiting := c.pending[r.requestID]
	if len(waiting) == 0 {
		return
	}
	waiting[0].done <- outcome{result: r}
	if waiting = waiting[1:]; len(waiting) == 0 {
		delete(c.pending, r.requestID)
	} else {
		c.pending[r.requestID] = waiting
	}
}
