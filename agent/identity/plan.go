package identity

import (
	"crypto/x509"
	"slices"
	"time"

	"github.com/skep-io/skep/ca"
)

const (
	// maxBatch is how many tasks one request to a manager is for; the managers' limit.
	maxBatch = 64
	// firstWait is the longest wait for a task that has no SVID, and lastShare the part of what is left that a wait takes for
	// one that has: it is tried again several times before the SVID ends.
	firstWait = time.Minute
	lastShare = 4
	// leastWait is the least time between two SVIDs of a task: where clocks differ by more than a life, each is old when it comes.
	leastWait = time.Minute
	// refusedWait is the time until a manager is asked again that said no.
	refusedWait = 10 * time.Minute
)

// plan decides when managers are asked for which task's SVID. It is a core: the caller brings times and randomness.
type plan struct{ tasks map[string]*renewal }

// renewal is the plan for one task.
type renewal struct {
	next     time.Time // of the next try
	failures int       // in a row
	ends     time.Time // of the SVID in use, or zero
}

func newPlan() plan { return plan{map[string]*renewal{}} }

// add takes in a task without an SVID: it is asked for at once.
func (p plan) add(id string, now time.Time) { p.tasks[id] = &renewal{next: now} }

func (p plan) remove(id string) { delete(p.tasks, id) }

// becomeIssued takes note of an SVID that a task was just given. Random is in [0, 1).
func (p plan) becomeIssued(id string, leaf *x509.Certificate, now time.Time, random float64) {
	p.becomeAdopted(id, leaf, random)
	if soonest := now.Add(leastWait); p.tasks[id].next.Before(soonest) {
		p.tasks[id].next = soonest
	}
}

// becomeAdopted takes note of an SVID that a task had already, and that may be due. Random is in [0, 1).
func (p plan) becomeAdopted(id string, leaf *x509.Certificate, random float64) {
	p.tasks[id] = &renewal{next: ca.RenewAt(leaf.NotBefore, leaf.NotAfter, random), ends: leaf.NotAfter}
}

// becomeFailed takes note of a try that failed. Random is in [0, 1).
func (p plan) becomeFailed(id string, now time.Time, random float64) {
	r := p.tasks[id]
	r.failures++
	wait := ca.Backoff(r.failures, random)
	if left := r.ends.Sub(now); left > 0 {
		wait = min(wait, max(left/lastShare, ca.Backoff(1, random)))
	} else {
		wait = min(wait, firstWait)
	}
	r.next = now.Add(wait)
}

// becomeRefused takes note that a manager said no.
func (p plan) becomeRefused(id string, now time.Time) {
	p.tasks[id].failures = 0
	p.tasks[id].next = now.Add(refusedWait)
}

// retry has those tried at once whose last try failed: a manager can be reached again.
func (p plan) retry(now time.Time) {
	for _, r := range p.tasks {
		if r.failures > 0 && r.next.After(now) {
			r.next = now
		}
	}
}

// renewAll has all SVIDs renewed at once: they lead to a root that is on its way out.
func (p plan) renewAll(now time.Time) {
	for _, r := range p.tasks {
		if r.next.After(now) {
			r.next = now
		}
	}
}

// due returns the tasks to ask for now, those first that have waited longest, at most maxBatch.
func (p plan) due(now time.Time) []string {
	var ids []string
	for id, r := range p.tasks {
		if !r.next.After(now) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		if c := p.tasks[a].next.Compare(p.tasks[b].next); c != 0 {
			return c
		}
		return slices.Compare([]byte(a), []byte(b))
	})
	return ids[:min(len(ids), maxBatch)]
}

// next returns when there is something to do, and whether there is.
func (p plan) next() (at time.Time, ok bool) {
	for _, r := range p.tasks {
		if !ok || r.next.Before(at) {
			at, ok = r.next, true
		}
	}
	return at, ok
}

// firstEnd returns when the first SVID of some tasks ends, or zero if none of them has one.
func (p plan) firstEnd(ids []string) (at time.Time) {
	for _, id := range ids {
		if r := p.tasks[id]; r != nil && !r.ends.IsZero() && (at.IsZero() || r.ends.Before(at)) {
			at = r.ends
		}
	}
	return at
}
