package orchestrator

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Key names what a core is asked about.
type key struct {
	service string
	slot    uint64 // 0 unless the loop goes by slot
}

func compareKeys(a, b key) int {
	if c := strings.Compare(a.service, b.service); c != 0 {
		return c
	}
	return int(min(max(int64(a.slot)-int64(b.slot), -1), 1))
}

// queue is what a Loop still has to look at.
type queue struct {
	dirty map[key]bool
	wakes map[key]time.Time
}

func newQueue() *queue { return &queue{dirty: map[key]bool{}, wakes: map[key]time.Time{}} }

func (q *queue) mark(k key) { q.dirty[k] = true }

// wakeAt replaces the time at which k gets dirty by itself; zero is never.
func (q *queue) wakeAt(k key, at time.Time) {
	if at.IsZero() {
		delete(q.wakes, k)
		return
	}
	q.wakes[k] = at
}

// wakeBy has k get dirty by itself at a time, if it does not earlier.
func (q *queue) wakeBy(k key, at time.Time) {
	if until, waits := q.wakes[k]; !waits || at.Before(until) {
		q.wakes[k] = at
	}
}

// expire marks the keys whose time has come.
func (q *queue) expire(now time.Time) {
	for k, at := range q.wakes {
		if !at.After(now) {
			q.mark(k)
			delete(q.wakes, k)
		}
	}
}

// take returns all dirty keys, in order, and forgets them.
func (q *queue) take() []key {
	keys := slices.SortedFunc(maps.Keys(q.dirty), compareKeys)
	clear(q.dirty)
	return keys
}

// untilNext returns how long it is until a key gets dirty by itself.
func (q *queue) untilNext(now time.Time) time.Duration {
	const never = time.Hour
	next := now.Add(never)
	for _, at := range q.wakes {
		if at.Before(next) {
			next = at
		}
	}
	return next.Sub(now)
}
