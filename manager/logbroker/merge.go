package logbroker

import (
	"container/heap"
	"container/list"
	"time"

	"github.com/skep-io/skep/api"
)

// merge decides which line comes next. It holds at most one line per source. It has no clock: the caller says what time it is.
//
// A source is silent from when it was opened, or its line was popped, until its next push:
//
//	open --> silent --push--> shows a line --pop--> silent --end--> gone
type merge struct {
	// hold is how long a source that has just become silent holds back the lines of others; negative is for ever.
	hold   time.Duration
	heads  heads
	silent *list.List // of silence, the most recent last
	places map[int]*list.Element
}

// silence is since when a source is silent.
type silence struct {
	source int
	since  time.Time
}

func newMerge(hold time.Duration) *merge {
	return &merge{hold: hold, silent: list.New(), places: map[int]*list.Element{}}
}

// open adds a source.
func (m *merge) open(source int, now time.Time) {
	m.places[source] = m.silent.PushBack(silence{source, now})
}

// end removes a source that is silent.
func (m *merge) end(source int) {
	if place, ok := m.places[source]; ok {
		m.silent.Remove(place)
		delete(m.places, source)
	}
}

// push gives the next line of a source that is silent.
func (m *merge) push(source int, line *api.LogLine) {
	m.end(source)
	heap.Push(&m.heads, head{source: source, line: line, at: line.GetTime().AsTime()})
}

// pop returns the line that comes next, and its source. When none may be sent yet, wait says after what time one will be
// although nothing happens; negative is never.
func (m *merge) pop(now time.Time) (line *api.LogLine, source int, wait time.Duration) {
	if len(m.heads) == 0 {
		return nil, 0, -1
	}
	if last := m.silent.Back(); last != nil { // it may have an earlier one
		if m.hold < 0 {
			return nil, 0, -1
		}
		if wait = m.hold - now.Sub(last.Value.(silence).since); wait > 0 {
			return nil, 0, wait
		}
	}
	first := heap.Pop(&m.heads).(head)
	m.open(first.source, now)
	return first.line, first.source, 0
}

// head is the next line of a source.
type head struct {
	source int
	line   *api.LogLine
	at     time.Time
}

// heads is a heap by time; equal times go by source, so that the order is always the same.
type heads []head

// Len implements heap.Interface.
func (h heads) Len() int { return len(h) }

// Less implements heap.Interface.
func (h heads) Less(i, j int) bool {
	if !h[i].at.Equal(h[j].at) {
		return h[i].at.Before(h[j].at)
	}
	return h[i].source < h[j].source
}

// Swap implements heap.Interface.
func (h heads) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

// Push implements heap.Interface.
func (h *heads) Push(x any) { *h = append(*h, x.(head)) }

// Pop implements heap.Interface.
func (h *heads) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = head{}
	*h = old[:len(old)-1]
	return last
}
