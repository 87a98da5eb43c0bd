package session

import (
	"slices"
	"time"
)

const (
	// backoffMin and backoffMax bound the pause after a round in which no manager answered; Docker Swarm's.
	backoffMin = 100 * time.Millisecond
	backoffMax = 8 * time.Second
	// connectMin is the time that a manager has to accept a connection in the first round, so that an agent reaches the next
	// one within a second; it doubles per round up to connectMax, for networks and machines that are slow.
	connectMin = time.Second
	connectMax = 8 * time.Second
	// steady is how long a session must last to count as a success (Q5).
	steady = 5 * time.Second
)

// attempt is a try to be made.
type attempt struct {
	// address is a manager's host:port.
	address string
	// pause is the time to wait before; connect is the time that the manager has to accept the connection.
	pause, connect time.Duration
}

// remotes chooses managers: round and round, with pauses after rounds of failures.
type remotes struct {
	// addresses is never empty.
	addresses []string
	// next is the index of the manager to try.
	next int
	// failures is the number of tries since the last success.
	failures int
}

// newRemotes begins at an index, so that the agents of a cluster spread over its managers.
func newRemotes(addresses []string, first int) *remotes {
	return &remotes{addresses: addresses, next: first % len(addresses)}
}

// attempt returns what to try now. The jitter, from 0 to 1, shortens a pause by up to half, so that the agents of a cluster
// don't come all at once.
func (r *remotes) attempt(jitter float64) attempt {
	rounds := r.failures / len(r.addresses)
	a := attempt{address: r.addresses[r.next], connect: double(connectMin, rounds, connectMax)}
	if rounds > 0 && r.failures%len(r.addresses) == 0 {
		pause := double(backoffMin, rounds-1, backoffMax)
		a.pause = pause - time.Duration(jitter*float64(pause)/2)
	}
	return a
}

// ended takes in the end of a try or session with the address of the last attempt, that lasted for some time.
func (r *remotes) ended(lasted time.Duration) {
	if lasted >= steady {
		r.failures = 0
	}
	r.failures++
	r.next = (r.next + 1) % len(r.addresses)
}

// set replaces the addresses. An empty list is ignored: somebody must be left to ask. The manager in use stays the present one.
func (r *remotes) set(addresses []string) {
	if len(addresses) == 0 {
		return
	}
	present := r.addresses[r.next]
	r.addresses = slices.Clone(addresses)
	r.next = max(slices.Index(r.addresses, present), 0)
}

// double returns d doubled n times, at most limit.
func double(d time.Duration, n int, limit time.Duration) time.Duration {
	for range n {
		if d >= limit/2 {
			return limit
		}
		d *= 2
	}
	return d
}
