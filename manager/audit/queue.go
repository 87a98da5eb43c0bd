package audit

import (
	"cmp"
	"slices"
	"time"

	"github.com/skep-io/skep/api"
)

// Limits of what waits to be written (U1).
const (
	// window is the time over which calls alike are summed up.
	window = time.Minute
	// maxKeys bounds the kinds of calls that fail in a window; each that comes again is counted.
	maxKeys = 256
	// maxStrangers bounds those of callers who proved nothing, so that they don't push the rest of the log out of its size: at 150 bytes
	// an entry they get 4 MiB a day.
	maxStrangers = 16
	// maxWaiting bounds what waits while there is no leader.
	maxWaiting = 4096
)

// key is what calls have in common that are counted together.
type key struct {
	method, callerKind, caller, host, manager, objectKind, objectID, objectName, result, summary string
}

func keyOf(e *api.AuditEvent) key {
	return key{
		e.GetMethod(), e.GetCallerKind(), e.GetCaller(), hostOf(e.GetAddress()), e.GetManager(),
		e.GetObjectKind(), e.GetObjectId(), e.GetObjectName(), e.GetResult(), e.GetSummary(),
	}
}

// queue is the core that holds what waits to be written: the first call of a kind at once, those that follow within a window as
// one event with their number. Make one with newQueue.
type queue struct {
	manager string    // the id of this one; constant
	began   time.Time // of the window
	waiting []*api.AuditEvent
	seen    map[key]*api.AuditEvent // in the window: the calls after the first, or nil while there are none
	strange int                     // those in seen that are strangers'
	lost    uint64                  // calls that had no room
	lostAt  time.Time               // the first of them
}

func newQueue(manager string) *queue {
	return &queue{manager: manager, seen: map[key]*api.AuditEvent{}}
}

// add takes an event in, which it owns from then on.
func (q *queue) add(now time.Time, e *api.AuditEvent) {
	q.turn(now)
	k := keyOf(e)
	repeated, seen := q.seen[k]
	stranger := e.GetCaller() == "" && e.GetCallerKind() == "anyone"
	switch {
	case repeated != nil:
		repeated.Count++
	case seen:
		e.Count, e.FirstAt, e.RequestId = 1, uint64(now.UnixNano()), ""
		q.seen[k] = e
	case len(q.seen) >= maxKeys, stranger && q.strange >= maxStrangers, len(q.waiting) >= maxWaiting:
		q.lose(now, 1)
	default:
		if stranger {
			q.strange++
		}
		q.seen[k] = nil
		q.waiting = append(q.waiting, e)
	}
}

// deliver takes in that a secret went to a node: such events are counted by nobody, and have room as long as there is any.
func (q *queue) deliver(now time.Time, e *api.AuditEvent) {
	if len(q.waiting) >= maxWaiting {
		q.lose(now, 1)
		return
	}
	q.waiting = append(q.waiting, e)
}

func (q *queue) lose(now time.Time, n uint64) {
	if q.lost == 0 {
		q.lostAt = now
	}
	q.lost += n
}

// turn begins a new window when the last has passed: what was counted in it can be written.
func (q *queue) turn(now time.Time) {
	if now.Sub(q.began) < window {
		return
	}
	var counted []*api.AuditEvent
	for _, e := range q.seen {
		if e != nil {
			counted = append(counted, e)
		}
	}
	slices.SortFunc(counted, func(a, b *api.AuditEvent) int { return cmp.Compare(a.GetFirstAt(), b.GetFirstAt()) })
	clear(q.seen)
	q.began, q.strange = now, 0
	q.putBack(now, counted)
	if q.lost > 0 {
		q.waiting = append(q.waiting, &api.AuditEvent{
			Method: "Audit.RecordAudit", CallerKind: "manager", Caller: q.manager, Manager: q.manager, Result: resultLost,
			Count: q.lost, FirstAt: uint64(q.lostAt.UnixNano()), Summary: "too many calls failed, and these have no entry of their own",
		})
		q.lost = 0
	}
}

// take returns what is to be written now.
func (q *queue) take(now time.Time) []*api.AuditEvent {
	q.turn(now)
	taken := q.waiting
	q.waiting = nil
	return taken
}

// putBack takes back what could not be written.
func (q *queue) putBack(now time.Time, events []*api.AuditEvent) {
	if room := maxWaiting - len(q.waiting); len(events) > room {
		for _, e := range events[max(room, 0):] {
			q.lose(now, max(e.GetCount(), 1))
		}
		events = events[:max(room, 0)]
	}
	q.waiting = append(events, q.waiting...)
}

// next returns how long nothing has to be written if nothing is added, or false while there is nothing.
func (q *queue) next(now time.Time) (time.Duration, bool) {
	switch {
	case len(q.waiting) > 0:
		return 0, true
	case len(q.seen) > 0 || q.lost > 0:
		return max(q.began.Add(window).Sub(now), 0), true
	}
	return 0, false
}
