package main

import (
	"errors"

	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// keyring is the key-encryption keys of a manager, as whoever unlocks it knows them.
type keyring struct {
	now  seal.Key
	next seal.Key // what is asked for, and not acknowledged
	old  seal.Key // opens nothing any more
}

func newKeyring() keyring { return keyring{now: seal.NewKey()} }

// open opens the store with the key of now, or, when the change of the key was interrupted, with the next one. The key before
// opens nothing.
func (k *keyring) open(n *node, open func(seal.Key) (*store.Store, error)) (*store.Store, error) {
	if !k.old.IsZero() && !n.disk.flipped {
		if _, err := open(k.old); err == nil {
			n.w.violated("%s opens with a key that was replaced", n.name)
		}
		k.old = seal.Key{}
	}
	s, err := open(k.now)
	if errors.Is(err, seal.ErrWrongKey) && !k.next.IsZero() {
		if s, err = open(k.next); err == nil {
			k.now = k.next
		}
	}
	if err == nil {
		k.next = seal.Key{}
	}
	return s, err
}

// reseal gives the manager a fresh data key and another key-encryption key.
func (n *node) reseal() {
	if n.p == nil || !n.keys.next.IsZero() {
		return
	}
	if n.w.bug == oldRing {
		n.oldRing, _ = vfs.ReadFile(n.mem, ringPath, 1<<16)
	}
	next := seal.NewKey()
	n.keys.next = next
	n.calls = append(n.calls, &call{pending: n.p.Reseal(next, seal.SourceUnlockKey), done: func(err error) {
		if err == nil && n.keys.next.Equal(next) {
			n.keys = keyring{now: next, old: n.keys.now}
		}
	}})
	n.settle()
}
