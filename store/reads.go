package store

import (
	"crypto/rand"
	"encoding/binary"

	"github.com/skep-io/skep/store/raftcore"
)

// retryReadTicks is how often a question to the leader is asked again: it may have been lost.
const retryReadTicks = 5

// reads are the barriers that wait. Questions to the leader are asked one at a time: whoever comes meanwhile shares the next
// one, because an answer only covers those that waited before its question.
type reads struct {
	id      uint64       // of the question, or of the last one, see newQuestionID
	asked   []chan error // wait for the answer; empty when no question is open
	next    []chan error // wait for the next question
	age     int          // ticks since the question was asked
	waiting []waiter     // wait for an index to be applied
}

type waiter struct {
	index Index
	done  []chan error
}

// newQuestionID returns where a manager starts to count its questions. The leader, and those that confirm that it leads, tell all
// questions of all managers apart by this number alone: were it used again, by another manager or after a restart, an answer
// from before could pass for one to the new question, and the read be stale (I1).
func newQuestionID() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return binary.BigEndian.Uint64(b[:])
}

func (c *cluster) read(done chan error) error {
	c.reads.next = append(c.reads.next, done)
	return c.ask()
}

// ask asks the next question unless one is open, or nobody can answer it yet.
func (c *cluster) ask() error {
	r := &c.reads
	if len(r.asked) > 0 || len(r.next) == 0 || !c.answerable() {
		return nil
	}
	r.id++
	r.asked, r.next, r.age = r.next, nil, 0
	return c.step(raftcore.Read{ID: r.id})
}

// answerable reports whether there is a leader to ask. This manager is one once it has applied the first entry of its term: until
// then it may not know all that was committed before, and the raft library checks that in groups of several only.
func (c *cluster) answerable() bool {
	leader := c.core.Leader()
	if leader.Self {
		return c.readyTerm == leader.Term
	}
	return leader.ID != 0
}

func (c *cluster) readsTick() error {
	r := &c.reads
	if len(r.asked) == 0 {
		return c.ask()
	}
	if r.age++; r.age < retryReadTicks || !c.answerable() {
		return nil
	}
	r.age = 0
	return c.step(raftcore.Read{ID: r.id})
}

func (c *cluster) readReady(ready raftcore.ReadReady) error {
	r := &c.reads
	if ready.ID != r.id || len(r.asked) == 0 {
		return nil
	}
	r.waiting = append(r.waiting, waiter{index: ready.Index, done: r.asked})
	r.asked = nil
	c.readsApplied()
	return c.ask()
}

// readsApplied lets go whoever waited for what is applied now.
func (c *cluster) readsApplied() {
	rest := c.reads.waiting[:0]
	for _, w := range c.reads.waiting {
		if w.index > c.machine.index {
			rest = append(rest, w)
			continue
		}
		for _, done := range w.done {
			done <- nil
		}
	}
	clear(c.reads.waiting[len(rest):])
	c.reads.waiting = rest
}
