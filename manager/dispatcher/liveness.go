package dispatcher

import (
	"slices"
	"time"
)

const (
	// answerTime is how long a suspected node has to answer.
	answerTime = time.Second
	// minTrust and maxTrust are how long nobody suspects a node again that has answered: the longer the more often it was.
	minTrust = 10 * time.Second
	maxTrust = time.Hour
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
	// suspected are nodes that are asked whether they live; trusted those who were, and answered.
	suspected map[string]suspicion
	trusted   map[string]trust
}

// suspicion is that a node is asked whether it lives.
type suspicion struct {
	since time.Time
	until time.Time // when it is down without an answer, or zero before it was asked
}

// trust is that a node is not suspected for a while.
type trust struct {
	until time.Time
	last  time.Duration // how long it was given
}

// newLiveness begins with the nodes that the store says are READY.
func newLiveness(now time.Time, period time.Duration, ready []string) *liveness {
	l := &liveness{period: period, heard: map[string]time.Time{}, asked: now, suspected: map[string]suspicion{}, trusted: map[string]trust{}}
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
	if s, suspected := l.suspected[id]; suspected && !at.Before(s.since) {
		delete(l.suspected, id)
		l.trust(now, id)
	}
	return true
}

// trust notes that a node was suspected for nothing.
func (l *liveness) trust(now time.Time, id string) {
	before, next := l.trusted[id], minTrust
	if now.Before(before.until.Add(before.last)) {
		next = min(2*before.last, maxTrust)
	}
	l.trusted[id] = trust{until: now.Add(next), last: next}
}

// suspect begins to suspect a node which others tried to reach, in vain, at a time. It reports whether the node is to be asked: not if
// it was heard since.
func (l *liveness) suspect(now time.Time, id string, tried time.Time) bool {
	heard, alive := l.heard[id]
	_, suspected := l.suspected[id]
	if !alive || suspected || tried.Before(heard) || now.Before(l.trusted[id].until) {
		return false
	}
	l.suspected[id] = suspicion{since: now}
	return true
}

// questioned notes that a suspected node was asked, unless it has been heard already.
func (l *liveness) questioned(now time.Time, id string) {
	if s, suspected := l.suspected[id]; suspected {
		s.until = now.Add(answerTime)
		l.suspected[id] = s
	}
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
		if s := l.suspected[id]; !s.until.IsZero() && s.until.Before(deadline) {
			deadline = s.until
		}
		if !deadline.After(now) {
			down = append(down, id)
			delete(l.heard, id)
			delete(l.suspected, id)
			delete(l.trusted, id)
		} else if deadline.Before(next) {
			next = deadline
		}
	}
	slices.Sort(down)
	return down, next
}
