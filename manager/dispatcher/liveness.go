package dispatcher

import (
	"slices"
	"time"
)

// extraGrace is the number of further periods that nodes get from a leader that has not listened for a while.
const extraGrace = 2

// liveness is the leader's core that decides which nodes are down. It must be asked at least once in a period, and when the
// period changes.
type liveness struct {
	// period is that of the last time it was asked.
	period time.Duration
	// grace is until when no node is down, whatever was heard of it.
	grace time.Time
	asked time.Time
	// heard is when each node that counts as alive was heard last.
	heard map[string]time.Time
}

// newLiveness begins with the nodes that the store says are READY.
func newLiveness(now time.Time, period time.Duration, ready []string) *liveness {
	l := &liveness{period: period, heard: map[string]time.Time{}, asked: now}
	l.listenAgain(now, period)
	for _, id := range ready {
		l.heard[id] = now
	}
	return l
}

func (l *liveness) listenAgain(now time.Time, period time.Duration) {
	l.grace = now.Add((missedHeartbeats + extraGrace) * period)
}

// hear notes that a node was heard at a time. It reports whether that makes the node alive: old news don't.
func (l *liveness) hear(now time.Time, period time.Duration, id string, at time.Time) bool {
	if now.Sub(at) >= missedHeartbeats*period {
		return false
	}
	if at.After(l.heard[id]) {
		l.heard[id] = at
	}
	return true
}

// step returns the nodes that are down now, in order, and forgets them; next is when to ask again at the latest.
func (l *liveness) step(now time.Time, period time.Duration) (down []string, next time.Time) {
	if period != l.period || now.Sub(l.asked) > 2*period {
		// Nodes still beat by the former period. Or this process was stopped, or the machine slept: heartbeats are still waiting
		// to be read.
		l.listenAgain(now, period)
	}
	l.period, l.asked, next = period, now, now.Add(period)
	for id, at := range l.heard {
		deadline := at.Add(missedHeartbeats * period)
		if deadline.Before(l.grace) {
			deadline = l.grace
		}
		if !deadline.After(now) {
			down = append(down, id)
			delete(l.heard, id)
		} else if deadline.Before(next) {
			next = deadline
		}
	}
	slices.Sort(down)
	return down, next
}
