package events

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
)

// patience bounds how long a watch waits for a majority of managers to say where the log is: several elections.
const patience = 10 * time.Second

// errNoMajority is why a watch ends for which no majority answers.
var errNoMajority = fault.New(fault.Unavailable, "The swarm does not have a leader. It's possible that too few managers are online. "+
	"Make sure more than half of the managers are online.")

// Log has the last events. Make one with New.
type Log struct {
	api.UnimplementedEventsServer
	// constant after New
	store      *store.Store
	leadership func() (store.Leadership, <-chan struct{})
	// asked has requests to derive what there is; each is closed when that is done.
	asked chan chan struct{}

	mu sync.Mutex
	// The fields below are guarded by mu.

	ring     ring
	watches  int
	followed chan struct{} // closed and replaced with each event
}

// Config is what a Log needs.
type Config struct {
	Store *store.Store
	// Leadership is who leads, and a channel that is closed when that changes; nil is that of Store.
	Leadership func() (store.Leadership, <-chan struct{})
}

// New returns a Log. It has no events until Run runs.
func New(cfg Config) (*Log, error) {
	if cfg.Store == nil {
		return nil, errors.New("events: Store is required")
	}
	if cfg.Leadership == nil {
		cfg.Leadership = cfg.Store.Leadership
	}
	l := &Log{store: cfg.Store, leadership: cfg.Leadership, asked: make(chan chan struct{}), followed: make(chan struct{})}
	l.ring.base = cursor{index: math.MaxUint64} // nothing is known before Run
	return l, nil
}

// Run derives events until ctx ends, and then returns nil, or until the store stopped.
func (l *Log) Run(ctx context.Context) error { return store.Follow(ctx, l.run) }

// run derives events until the state jumps, as by a snapshot of another manager: what happened meanwhile nobody knows here.
func (l *Log) run(ctx context.Context) error {
	watcher, err := l.store.Watch(ctx, 0, kinds()...)
	if err != nil {
		return err
	}
	d, err := newDerivation(watcher.Snapshot())
	if err != nil {
		return err
	}
	l.begin(watcher.Position())
	leader, changed := l.leadership()
	var asking chan struct{} // or nil
	defer func() {
		if asking != nil {
			close(asking) // whoever asked finds that the ring began anew, or that the store stopped
		}
	}()
	for {
		if err := l.derive(d, watcher); err != nil {
			return err
		}
		if asking != nil {
			close(asking)
			asking = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Ready():
		case asking = <-l.asked:
		case <-changed:
			var now store.Leadership
			now, changed = l.leadership()
			if now.LeaderID != "" && now.Term != leader.Term {
				leader = now
				l.add(d.leads(now, l.next(watcher.Position())))
			}
		}
	}
}

// derive adds the events of all changes that there are.
func (l *Log) derive(d *derivation, watcher *store.Watcher) error {
	for {
		batch, more, err := watcher.TryNext()
		if err != nil || !more {
			return err
		}
		l.add(d.events(batch)...)
	}
}

func (l *Log) begin(index store.Index) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ring.begin(index, time.Now())
	l.wake()
}

func (l *Log) add(events ...entry) {
	if len(events) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range events {
		if e.time.IsZero() {
			e.time = time.Now() // what only this manager noted
		}
		l.ring.add(e)
	}
	l.wake()
}

// wake tells watches to look again. Called with mu.
func (l *Log) wake() {
	close(l.followed)
	l.followed = make(chan struct{})
}

// next is the place of an event that came of no entry of the log: after those of the last one that there is.
func (l *Log) next(position store.Index) cursor {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.ring.last()
	if last.index < position {
		last = cursor{index: position}
	}
	return cursor{last.index, max(last.n, later) + 1}
}

// catchUp returns once all events are derived that were decided before it was called, and the index up to which they are.
func (l *Log) catchUp(ctx context.Context) (store.Index, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errNoMajority)
	defer cancel()
	if err := l.store.Barrier(ctx); err != nil {
		if fault.KindOf(err) == fault.Internal {
			err = fault.Wrap(fault.Unavailable, fmt.Errorf("read the cluster's state: %w", err))
		}
		return 0, err
	}
	var index store.Index
	if err := l.store.View(func(tx store.ReadTx) error { index = tx.Index(); return nil }); err != nil {
		return 0, err
	}
	if index == 0 {
		return 0, nil // nothing has ever happened
	}
	if _, err := l.store.Watch(ctx, index); err != nil && !errors.Is(err, store.ErrResync) { // it waits until watchers have the entry
		return 0, fault.Wrap(fault.Unavailable, err)
	}
	return index, l.ask(ctx)
}

// ask has Run derive what there is.
func (l *Log) ask(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case l.asked <- done:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
