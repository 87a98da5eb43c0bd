package events

import (
	"slices"
	"time"

	"github.com/skep-io/skep/store"
)

const (
	// maxEvents and maxBytes bound what a manager keeps: the deployment of some thousand tasks.
	maxEvents = 32768
	maxBytes  = 16 << 20
	// entryBytes is what an event takes beside its texts.
	entryBytes = 320
)

// attribute is one of an event.
type attribute struct{ key, value string }

// entry is an event as it is kept: its texts are shared with the objects that it came of.
type entry struct {
	at     cursor
	time   time.Time
	kind   string
	action string
	id     string
	name   string
	// serviceID, serviceName, nodeID and nodeName are what the event is about besides, or empty.
	serviceID, serviceName string
	nodeID, nodeName       string
	attributes             []attribute
	// labels belong to the object: nobody may change them.
	labels map[string]string
}

// size is about what the entry takes, in bytes.
func (e *entry) size() int {
	n := entryBytes
	for _, a := range e.attributes {
		n += len(a.key) + len(a.value)
	}
	for key, value := range e.labels {
		n += len(key) + len(value)
	}
	return n
}

// ring has the last events. Readers know their place by a number that only grows.
type ring struct {
	entries []entry // oldest first
	first   uint64  // the number of entries[0], or of the next one
	bytes   int
	// base is the place up to which events are not kept, and since the time.
	base  cursor
	since time.Time
}

// begin forgets everything: what happened up to an entry of the log is not known. Readers notice.
func (r *ring) begin(index store.Index, now time.Time) {
	r.first += uint64(len(r.entries)) + 1
	r.entries, r.bytes = nil, 0
	r.base, r.since = cursor{index, later}, now
}

// end is the number that the next event gets, and last the place up to which everything is there.
func (r *ring) end() uint64 { return r.first + uint64(len(r.entries)) }

func (r *ring) last() cursor {
	if n := len(r.entries); n > 0 {
		return r.entries[n-1].at
	}
	return r.base
}

func (r *ring) add(e entry) {
	r.entries = append(r.entries, e)
	r.bytes += e.size()
	for len(r.entries) > maxEvents || r.bytes > maxBytes {
		r.drop()
	}
}

func (r *ring) drop() {
	oldest := &r.entries[0]
	r.bytes -= oldest.size()
	r.base = oldest.at
	if oldest.time.After(r.since) {
		r.since = oldest.time
	}
	*oldest = entry{} // the array lives on until append moves the rest
	r.entries = r.entries[1:]
	r.first++
}

// seek returns the number of the first event after a place; ok is false when some of those are not kept any more.
func (r *ring) seek(after cursor) (number uint64, ok bool) {
	if after.compare(r.base) < 0 {
		return 0, false
	}
	i, found := slices.BinarySearchFunc(r.entries, after, func(e entry, at cursor) int { return e.at.compare(at) })
	if found {
		i++
	}
	return r.first + uint64(i), true
}

// read returns a few events from a number on; ok is as in seek. The caller must not change them.
func (r *ring) read(number uint64, most int) (events []entry, ok bool) {
	if number < r.first {
		return nil, false
	}
	events = r.entries[number-r.first:]
	return slices.Clone(events[:min(len(events), most)]), true
}
