package store

import (
	"context"
	"errors"
	"slices"
	"time"

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
	// At is when the change was proposed, by the clock of the manager that led; the same on all managers.
	At time.Time
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
	at       *link         // of the last batch seen, or of one before the position
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
		next, err := w.hub.after(w.at, w.position)
		if err != nil || next == nil {
			return Batch{}, false, err
		}
		w.at = next
		if next.batch.Index <= w.position {
			continue // the snapshot has it
		}
		w.position = next.batch.Index
		if batch := w.filter(next.batch); len(batch.Changes) > 0 {
			return batch, true, nil
		}
	}
}

// Drain passes over what there is already: for whoever looks at the state afterwards anyway.
func (w *Watcher) Drain() error {
	for {
		if _, more, err := w.TryNext(); err != nil || !more {
			return err
		}
	}
}

// Ready returns a channel that is closed once TryNext may have something to say. Take a new one after each TryNext.
func (w *Watcher) Ready() <-chan struct{} { return w.at.followed }

// filter returns the changes of watched kinds. It copies only where a batch has both.
func (w *Watcher) filter(b Batch) Batch {
	if len(w.kinds) == 0 {
		return b
	}
	wanted := func(c Change) bool { return slices.Contains(w.kinds, c.Kind()) }
	n := 0
	for _, change := range b.Changes {
		if wanted(change) {
			n++
		}
	}
	if n == len(b.Changes) {
		return b
	}
	kept := make([]Change, 0, n)
	for _, change := range b.Changes {
		if wanted(change) {
			kept = append(kept, change)
		}
	}
	return Batch{Index: b.Index, Changes: kept}
}

// Await returns nil when the store has changed, or at a time, unless that is the zero time; what the watcher has is dropped, for callers
// that look at the state and not at changes. It returns ctx's cause, or why the watcher ended.
func (w *Watcher) Await(ctx context.Context, again time.Time) error {
	var due <-chan time.Time
	if !again.IsZero() {
		timer := time.NewTimer(max(time.Until(again), 1))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-due:
		return nil
	case <-w.Ready():
		return w.Drain()
	}
}

// Follow calls run, which starts a watcher and works by it, and calls it again each time it ends with ErrResync. It returns nil once
// ctx ended, and otherwise what run returns.
func Follow(ctx context.Context, run func(context.Context) error) error {
	for {
		err := run(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, ErrResync):
			return err
		}
	}
}
