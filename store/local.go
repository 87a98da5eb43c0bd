package store

import (
	"context"
	"fmt"
	"sync"

	"github.com/skep-io/skep/api"
)

// NewLocal returns a store in memory, without log or peers: it leads from the start, applies each write at once, and forgets
// everything when it is dropped. It serves tests, and scratch copies of a state such as a backup that is being verified.
func NewLocal(clusterID string) (*Store, error) {
	m := newMachine(clusterID)
	h := newHub(0)
	return &Store{machine: m, hub: h, log: &local{machine: m, hub: h, never: make(chan struct{})}}, nil
}

// Restore replaces the state of a local store by a snapshot, which it owns from then on. Watchers get ErrResync.
func (s *Store) Restore(snapshot *api.StoreSnapshot) error {
	l, ok := s.log.(*local)
	if !ok {
		return fmt.Errorf("restore: %w: only a local store can be restored", ErrInvalid)
	}
	b, err := build(snapshot)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.machine.restore(b); err != nil {
		return err
	}
	l.hub.reset(l.machine.index)
	return nil
}

// local is a log with a single, immediate order.
type local struct {
	mu      sync.Mutex
	machine *machine // guarded by mu
	hub     *hub
	never   chan struct{}
}

func (l *local) propose(ctx context.Context, t prepared) (result, error) {
	if err := ctx.Err(); err != nil {
		return result{}, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	results, batch, err := l.machine.apply(l.machine.index+1, appendTransaction(nil, t.encoded))
	if err != nil {
		return result{}, err
	}
	l.hub.add(batch)
	return results[0], nil
}

func (l *local) barrier(ctx context.Context) error { return context.Cause(ctx) }

func (l *local) leadership() (Leadership, <-chan struct{}) {
	return Leadership{Term: 1, LeaderID: "local", Self: true}, l.never
}

func (l *local) status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	leadership, _ := l.leadership()
	return Status{Leadership: leadership, NodeID: "local", Committed: l.machine.index, Applied: l.machine.index, Settled: true}
}

func (l *local) between(_ context.Context, fn func(*machine) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fn(l.machine)
}
