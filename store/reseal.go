package store

import (
	"context"
	"fmt"
	"time"

	"github.com/skep-io/skep/store/seal"
)

// Reseal makes kek the key that opens this manager's store, instead of the present one, which opens it no more. It also gives
// the store a fresh data key and seals everything on disk with it, because whoever had the old KEK may have copied the old
// data key. It returns once all that is durable, and does nothing when the key is this one already. It needs a store that
// runs; a local store has nothing on disk, and nothing to do.
//
// After an error the old key or the new one opens the store, and it may be called again.
func (s *Store) Reseal(kek seal.Key, source seal.Source) error {
	if s.cluster == nil || s.cluster.wal.Ring().WrappedBy(kek, source) {
		return nil
	}
	if err := s.cluster.rotate(context.Background()); err != nil {
		return fmt.Errorf("seal the store with another key: %w", err)
	}
	if err := s.cluster.wal.Ring().Rewrap(kek, source); err != nil {
		return fmt.Errorf("seal the store with another key: %w", err)
	}
	return nil
}

// RotateDataKey gives this manager's store a fresh data key, seals everything on disk with it, and forgets the old one: a copy of
// the disk from before, with its key, opens nothing that is written since. It returns once all that is durable, and needs a store
// that runs; when ctx ends the rotation goes on. A local store has nothing on disk, and nothing to do.
//
// After an error the key that opened the store opens it still, and it may be called again.
func (s *Store) RotateDataKey(ctx context.Context) error {
	if s.cluster == nil {
		return nil
	}
	if err := s.cluster.rotate(ctx); err != nil {
		return fmt.Errorf("rotate the data key: %w", err)
	}
	return nil
}

// DataKey says when the data key was made that seals this manager's store, zero if that is not known, and what DataKeyServed noted
// last. The zero values are a local store's.
func (s *Store) DataKey() (madeAt time.Time, generation uint64) {
	if s.cluster == nil {
		return time.Time{}, 0
	}
	return s.cluster.wal.Ring().DataKey()
}

// DataKeyServed notes durably that the rotation is done that the cluster asked for by a number.
func (s *Store) DataKeyServed(generation uint64) error {
	if s.cluster == nil {
		return nil
	}
	if err := s.cluster.wal.Ring().Served(generation); err != nil {
		return fmt.Errorf("note the rotation of the data key: %w", err)
	}
	return nil
}

// KeySource says where the key comes from that opens the store at the next start; 0 for a local store.
func (s *Store) KeySource() seal.Source {
	if s.cluster == nil {
		return 0
	}
	return s.cluster.wal.Ring().Source()
}

// rotation is a change of the data key under way:
//
//	begin: in the log's goroutine     reseal: beside it         finish: in the log's goroutine
//	a fresh key seals what comes ---> the snapshot, which ---> the log, which is small; then the
//	                                  may be large             former key is forgotten
//
// None runs beside a snapshot that is being made: parts of it would be sealed with the key that is forgotten.
type rotation struct {
	then func() error // follows in the log's goroutine, or nil
	done chan error   // holds one
}

// rotate changes the data key.
func (c *cluster) rotate(ctx context.Context) error {
	done := make(chan error, 1)
	err := c.call(ctx, func() error {
		c.rotations = append(c.rotations, rotation{done: done})
		c.startRotation()
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.stopped:
		return ErrStopped
	}
}

// startRotation begins the next change of the data key that waits.
func (c *cluster) startRotation() {
	if c.capturing || c.rotating || len(c.rotations) == 0 {
		return
	}
	c.rotating = true
	c.queue = append(c.queue, job{do: c.wal.BeginRotation, then: c.reseal})
}

// reseal lets the snapshot be sealed again.
func (c *cluster) reseal() error {
	snapshot, err := c.storage.MemoryStorage.Snapshot()
	if err != nil {
		return err
	}
	if snapshot.GetMetadata().GetIndex() == 0 {
		c.finishRotation()
		return nil
	}
	c.capturing = true
	c.captures <- capture{meta: snapshot.GetMetadata()}
	return nil
}

// finishRotation seals the log again, and tells who waits.
func (c *cluster) finishRotation() {
	r := c.rotations[0]
	finish := func() error {
		err := c.wal.FinishRotation()
		if err == nil && r.then != nil {
			err = r.then()
		}
		r.done <- err
		return err
	}
	c.queue = append(c.queue, job{do: finish, then: func() error {
		c.rotating, c.rotations = false, c.rotations[1:]
		c.startRotation()
		return nil
	}})
}
