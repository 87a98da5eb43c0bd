package store

import (
	"slices"
	"sync"
	"sync/atomic"
)

// hub keeps the last batches for watchers, as a chain that each of them follows at its own pace. Watchers share no lock, so ten
// thousand of them learn of a change as fast as the scheduler wakes them.
type hub struct {
	// base is the index up to which batches are forgotten: a watcher before it must start anew.
	base    atomic.Uint64
	stopped atomic.Bool

	mu      sync.Mutex
	last    Index         // guarded by mu; of the last entry, with changes or not
	links   []*link       // guarded by mu; the batches after base, in order, behind the link that they hang on
	changes int           // guarded by mu; in links
	arrival chan struct{} // guarded by mu; closed and replaced with every entry
}

// link is a batch in the chain.
type link struct {
	batch Batch
	// next is nil as long as there is no later batch, and again when this one is forgotten.
	next atomic.Pointer[link]
	// followed is closed when there is a next link, or will never be one.
	followed chan struct{}
}

func newLink(b Batch) *link { return &link{batch: b, followed: make(chan struct{})} }

func newHub(base Index) *hub {
	h := &hub{last: base, links: []*link{newLink(Batch{Index: base})}, arrival: make(chan struct{})}
	h.base.Store(base)
	return h
}

// add publishes a batch.
func (h *hub) add(b Batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.arrive(b.Index)
	if len(b.Changes) == 0 {
		return
	}
	h.append(b)
	h.changes += len(b.Changes)
	for len(h.links)-1 > watchWindow || h.changes > watchChanges && len(h.links) > 2 {
		h.forget()
	}
}

// append hangs a batch on the chain. Called with mu.
func (h *hub) append(b Batch) {
	tail, next := h.links[len(h.links)-1], newLink(b)
	h.links = append(h.links, next)
	tail.next.Store(next)
	close(tail.followed)
}

// forget lets go of the oldest batch: the link that it hung on leads nowhere from now on, so that a watcher who stands there
// holds nothing in memory. Called with mu.
func (h *hub) forget() {
	oldest := h.links[1]
	h.changes -= len(oldest.batch.Changes)
	h.base.Store(oldest.batch.Index)
	h.links[0].next.Store(nil)
	h.links[0] = nil // the array lives on until append moves the rest
	h.links = h.links[1:]
}

// arrive notes that an entry is applied. Called with mu.
func (h *hub) arrive(index Index) {
	h.last = index
	close(h.arrival)
	h.arrival = make(chan struct{})
}

// reset forgets all batches because the state jumped to index: every watcher before it must start anew.
func (h *hub) reset(index Index) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.base.Store(index)
	h.append(Batch{Index: index})
	for _, l := range h.links[:len(h.links)-1] {
		l.next.Store(nil)
	}
	h.links = []*link{h.links[len(h.links)-1]}
	h.changes = 0
	h.arrive(index)
}

func (h *hub) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.stopped.Swap(true) {
		close(h.links[len(h.links)-1].followed)
		close(h.arrival)
	}
}

// arrived returns nil once the entry at index is applied, and otherwise a channel that is closed with the next entry.
func (h *hub) arrived(index Index) (<-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.last >= index:
		return nil, nil
	case h.stopped.Load():
		return nil, ErrStopped
	default:
		return h.arrival, nil
	}
}

// at returns the last link whose batch is not after a position.
func (h *hub) at(position Index) (*link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if position < h.base.Load() {
		return nil, ErrResync
	}
	i, found := slices.BinarySearchFunc(h.links, position, func(l *link, at Index) int {
		switch {
		case l.batch.Index < at:
			return -1
		case l.batch.Index > at:
			return 1
		}
		return 0
	})
	if !found {
		i = max(i-1, 0)
	}
	return h.links[i], nil
}

// after returns the link that follows another one, for a watcher that has seen everything up to a position; nil while there is none.
func (h *hub) after(l *link, position Index) (*link, error) {
	stopped := h.stopped.Load()
	next := l.next.Load()
	if position < h.base.Load() {
		return nil, ErrResync
	}
	if next == nil && stopped {
		return nil, ErrStopped
	}
	return next, nil
}
