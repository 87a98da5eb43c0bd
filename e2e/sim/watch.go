package main

import (
	"context"
	"errors"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// watch follows a manager's store by its change stream, over its lives, and compares (I4).
type watch struct {
	store    *store.Watcher            // nil until the store has what was seen in a former life
	copy     map[store.Ref]store.Index // what the watcher says is there
	position store.Index               // of the copy
	hashed   store.Index               // the last index whose state was compared
	damage   int                       // what a planted bug is about to do
	held     *store.Batch              // likewise
}

// each calls fn with every object.
func each(tx store.ReadTx, fn func(store.Object)) error {
	services, err := store.List[*api.Service](tx)
	if err != nil {
		return err
	}
	for _, s := range services {
		fn(s)
	}
	secrets, err := store.List[*api.Secret](tx)
	if err != nil {
		return err
	}
	for _, s := range secrets {
		fn(s)
	}
	segments, err := store.List[*api.AuditSegment](tx)
	for _, s := range segments {
		fn(s)
	}
	return err
}

func refOf(o store.Object) store.Ref { return store.Ref{Kind: object.KindOf(o), ID: o.GetId()} }

// observe checks what the node has applied.
func (n *node) observe() {
	n.checkLeadership()
	if index := n.index(); index/200 != n.watch.hashed/200 || index < n.watch.hashed {
		n.compareState()
	}
	n.resume()
	for n.watch.store != nil {
		batch, ok, err := n.watch.store.TryNext()
		if errors.Is(err, store.ErrResync) {
			n.resync()
			continue
		}
		n.w.must(err)
		if !ok {
			return
		}
		for _, b := range n.damageWatch(batch) {
			n.takeBatch(b)
		}
	}
}

func (n *node) index() (index store.Index) {
	n.w.must(n.p.Store().View(func(tx store.ReadTx) error { index = tx.Index(); return nil }))
	return index
}

// checkLeadership checks that no term has two leaders.
func (n *node) checkLeadership() {
	lead, _ := n.p.Store().Leadership()
	if !lead.Self {
		return
	}
	if other, ok := n.w.leaders[lead.Term]; ok && other != n.name {
		n.w.violated("I2: %s and %s both lead term %d", other, n.name, lead.Term)
	}
	n.w.leaders[lead.Term] = n.name
}

// compareState compares the state with that of all who applied the same entry (I3).
func (n *node) compareState() {
	index, hash, err := n.p.StateHash()
	n.w.must(err)
	n.watch.hashed = index
	if before, ok := n.w.hashes[index]; ok && before != hash {
		n.w.violated("I3: the state of %s differs from another manager's at %d", n.name, index)
	}
	n.w.hashes[index] = hash
}

// resume continues the watch where the last life left it, once the store has caught up with it.
func (n *node) resume() {
	if n.watch.store != nil || n.index() < n.watch.position {
		return
	}
	if n.watch.position == 0 {
		n.resync()
		return
	}
	watcher, err := n.p.Store().Watch(context.Background(), n.watch.position)
	if errors.Is(err, store.ErrResync) {
		n.resync()
		return
	}
	n.w.must(err)
	n.watch.store, n.watch.damage = watcher, 1
}

// resync starts a watch from a snapshot.
func (n *node) resync() {
	watcher, err := n.p.Store().Watch(context.Background(), 0)
	n.w.must(err)
	had := n.watch.copy
	n.watch.store, n.watch.position, n.watch.copy = watcher, watcher.Position(), map[store.Ref]store.Index{}
	if n.w.bug == noResync && had != nil {
		n.watch.copy = had
		return
	}
	n.w.must(each(watcher.Snapshot(), func(o store.Object) { n.watch.copy[refOf(o)] = o.GetMeta().GetVersion() }))
}

// takeBatch applies a batch to the copy: each change must fit what the copy has.
func (n *node) takeBatch(batch store.Batch) {
	if batch.Index <= n.watch.position {
		n.w.violated("I4: %s was told of %d after %d", n.name, batch.Index, n.watch.position)
	}
	n.watch.position = batch.Index
	for _, change := range batch.Changes {
		ref := refOf(change.Object)
		before := uint64(0)
		if change.Old != nil {
			before = change.Old.GetMeta().GetVersion()
		}
		if n.watch.copy[ref] != before {
			n.w.violated("I4: the watcher of %s missed a change of %v before %d", n.name, ref, batch.Index)
		}
		n.watch.copy[ref] = change.Object.GetMeta().GetVersion()
		if change.Action == store.ActionDelete {
			delete(n.watch.copy, ref)
		}
		n.w.appliedOnce(change, batch.Index)
	}
}

// checkCopy compares the copy with the state.
func (n *node) checkCopy() {
	n.observe()
	count := 0
	n.w.must(n.p.Store().View(func(tx store.ReadTx) error {
		return each(tx, func(o store.Object) {
			count++
			if ref := refOf(o); n.watch.copy[ref] != o.GetMeta().GetVersion() {
				n.w.violated("I4: %s: the watcher has %v at %d, the store at %d", n.name, ref, n.watch.copy[ref], o.GetMeta().GetVersion())
			}
		})
	}))
	if count != len(n.watch.copy) {
		n.w.violated("I4: %s: the watcher has %d objects, the store %d", n.name, len(n.watch.copy), count)
	}
}
