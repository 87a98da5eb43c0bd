package store

import (
	"context"
	"slices"
	"sync"

	"github.com/skep-io/skep/store/object"
)

// Action is what a change did to an object.
type Action int

// The actions.
const (
	ActionCreate Action = iota + 1
	ActionUpdate
	ActionDelete
)

// String returns the action in lower case.
func (a Action) String() string {
	switch a {
	case ActionCreate:
		return "create"
	case ActionUpdate:
		return "update"
	case ActionDelete:
		return "delete"
	default:
		return "none"
	}
}

// Change is one committed change. The objects are shared with all readers: they must not be changed.
type Change struct {
	Action Action
	// Object is the object after the change; for a deletion, the object that went. Never nil.
	Object Object
	// Old is the object before the change, nil for a creation.
	Old Object
}

// Kind is the kind of the changed object.
func (c Change) Kind() object.Kind { return object.KindOf(c.Object) }

// Batch is the changes of one log entry, in order. Never empty when a Watcher returns it.
type Batch struct {
	Index   Index
	Changes []Change
}

// Watcher hands out exactly the changes that were committed after its start, in order (I4). It costs nothing while nobody
// asks it, and needs no Close. It is for one goroutine at a time.
//
//	w, err := s.Watch(0, object.KindService)
//	services, err := store.List[*api.Service](w.Snapshot())
//	for {
//		batch, err := w.Next(ctx) // errors.Is(err, store.ErrResync): start again with Watch(0, …)
//	}
//
// A loop that waits for several things uses Ready in its select, and then TryNext.
type Watcher struct {
	hub      *hub
	kinds    []object.Kind // empty means all
	snapshot ReadTx        // or nil
	position Index         // the last entry seen
}

// Snapshot is the state that the changes start from. It is nil when the watch was resumed from an index.
func (w *Watcher) Snapshot() ReadTx { return w.snapshot }

// Position is the index to resume from.
func (w *Watcher) Position() Index { return w.position }

// Next waits for the next batch with a change of a watched kind. It returns ErrResync when the watcher is too far behind,
// ErrStopped when the store stopped, or the error of ctx.
func (w *Watcher) Next(ctx context.Context) (Batch, error) {
	for {
		batch, ok, err := w.TryNext()
		if ok || err != nil {
			return batch, err
		}
		select {
		case <-ctx.Done():
			return Batch{}, context.Cause(ctx)
		case <-w.Ready():
		}
	}
}

// TryNext is Next without waiting: ok is false when there is nothing yet.
func (w *Watcher) TryNext() (batch Batch, ok bool, err error) {
	for {
		batch, ok, err := w.hub.after(w.position)
		if err != nil || !ok {
			return Batch{}, false, err
		}
		w.position = batch.Index
		if batch = w.filter(batch); len(batch.Changes) > 0 {
			return batch, true, nil
		}
	}
}

// Ready returns a channel that is closed once TryNext may have something to say. Take a new one after each TryNext.
func (w *Watcher) Ready() <-chan struct{} { return w.hub.ready(w.position) }

func (w *Watcher) filter(b Batch) Batch {
	if len(w.kinds) == 0 {
		return b
	}
	kept := make([]Change, 0, len(b.Changes))
	for _, change := range b.Changes {
		if slices.Contains(w.kinds, change.Kind()) {
			kept = append(kept, change)
		}
	}
	return Batch{Index: b.Index, Changes: kept}
}

// hub keeps the last batches for watchers.
type hub struct {
	mu      sync.Mutex
	base    Index         // batches up to here are forgotten
	last    Index         // of the last entry, with changes or not
	batches []Batch       // after base, in order
	changes int           // in batches
	news    chan struct{} // closed and replaced with every entry
	always  chan struct{} // closed
	stopped bool
}

func newHub(base Index) *hub {
	h := &hub{base: base, last: base, news: make(chan struct{}), always: make(chan struct{})}
	close(h.always)
	return h
}

// add publishes a batch.
func (h *hub) add(b Batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.wake()
	h.last = b.Index
	if len(b.Changes) == 0 {
		return
	}
	h.batches = append(h.batches, b)
	h.changes += len(b.Changes)
	drop := 0
	for len(h.batches)-drop > watchWindow || h.changes > watchChanges && len(h.batches)-drop > 1 {
		h.changes -= len(h.batches[drop].Changes)
		h.base = h.batches[drop].Index
		h.batches[drop] = Batch{} // the array lives on until append moves the rest
		drop++
	}
	h.batches = h.batches[drop:]
}

// reset forgets all batches because the state jumped to index: every watcher before it must start anew.
func (h *hub) reset(index Index) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.base, h.last, h.batches, h.changes = index, index, nil, 0
	h.wake()
}

func (h *hub) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.stopped {
		h.stopped = true
		h.wake()
	}
}

func (h *hub) wake() {
	close(h.news)
	h.news = make(chan struct{})
}

// arrived returns nil once the entry at index is applied, and otherwise a channel that is closed with the next entry.
func (h *hub) arrived(index Index) (<-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.last >= index:
		return nil, nil
	case h.stopped:
		return nil, ErrStopped
	default:
		return h.news, nil
	}
}

// after returns the first batch after the position.
func (h *hub) after(position Index) (Batch, bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if position < h.base {
		return Batch{}, false, ErrResync
	}
	i, _ := slices.BinarySearchFunc(h.batches, position+1, func(b Batch, i Index) int {
		if b.Index < i {
			return -1
		}
		if b.Index > i {
			return 1
		}
		return 0
	})
	if i < len(h.batches) {
		return h.batches[i], true, nil
	}
	if h.stopped {
		return Batch{}, false, ErrStopped
	}
	return Batch{}, false, nil
}

func (h *hub) ready(position Index) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.batches)
	if h.stopped || position < h.base || n > 0 && h.batches[n-1].Index > position {
		return h.always
	}
	return h.news
}
