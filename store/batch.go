package store

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"
)

// maxInFlight is how many transactions of one BatchIndependent wait for the log at once: enough that a loop with much to write does not
// wait for the disks of a majority after each of them, and few enough that others get in between.
const maxInFlight = 4

// Batch writes n things in as few transactions as is fair to others, one after the other. fn writes the i-th of them, for i from 0 on; it is
// repeated like that of Update, so what it sets besides must be set afresh for each i. done is how many are committed, which is n without an
// error; those that follow are not.
func (s *Store) Batch(ctx context.Context, n int, fn func(tx Tx, i int) error) (done int, err error) {
	for done < n {
		next := done
		err := s.Update(ctx, "", func(tx Tx) (err error) {
			next, err = fill(tx, done, n, tx.Full, fn)
			return err
		})
		if err != nil {
			return done, err
		}
		done = next
	}
	return done, nil
}

// BatchIndependent is Batch for things that do not depend on each other: several transactions are under way at once, and do not see each
// other's changes. fn must be safe to be called at once for different i. With an error some of those that follow may be committed, too.
func (s *Store) BatchIndependent(ctx context.Context, n int, fn func(tx Tx, i int) error) (done int, err error) {
	b := independent{store: s, n: n, fn: fn, done: n}
	var group errgroup.Group
	group.SetLimit(maxInFlight)
	for start := 0; start < b.committed(); {
		end := make(chan int, 1)
		group.Go(func() error { return b.write(ctx, start, end) })
		start = <-end
	}
	err = group.Wait()
	return b.committed(), err
}

// independent is one BatchIndependent.
type independent struct {
	// Constant.
	store *Store
	n     int
	fn    func(tx Tx, i int) error

	mu   sync.Mutex
	done int // none before it failed
}

func (b *independent) committed() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.done
}

func (b *independent) fail(start int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done = min(b.done, start)
}

// write writes those from start on that fit into one transaction. Once that has been filled it says where they end, and keeps to it when
// it has to be made again; when it can't be, it says n.
func (b *independent) write(ctx context.Context, start int, end chan<- int) error {
	limit := 0 // 0 until it was filled
	err := b.store.Update(ctx, "", func(tx Tx) error {
		if limit > 0 {
			_, err := fill(tx, start, limit, never, b.fn)
			return err
		}
		next, err := fill(tx, start, b.n, tx.Full, b.fn)
		if err != nil {
			return err
		}
		limit = next
		end <- limit
		return nil
	})
	if err != nil {
		b.fail(start)
	}
	if limit == 0 {
		end <- b.n
	}
	return err
}

func never() bool { return false }

// fill calls fn from start on until it is full, and returns the first that it left out, or n.
func fill(tx Tx, start, n int, full func() bool, fn func(tx Tx, i int) error) (next int, err error) {
	for next = start; next < n && !full(); next++ {
		if err := fn(tx, next); err != nil {
			return next, err
		}
	}
	return next, nil
}
