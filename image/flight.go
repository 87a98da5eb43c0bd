package image

import (
	"context"
	"errors"
	"sync"

	"github.com/opencontainers/go-digest"
)

// flights lets concurrent callers share one run of the same work. The zero
// value is ready.
type flights struct {
	mu     sync.Mutex
	flying map[digest.Digest]*flight
}

// flight is one run. Its goroutine belongs to its waiters: the last one to leave
// cancels it and waits for it, so that none outlives them.
type flight struct {
	done    chan struct{} // closed when err is set
	err     error
	cancel  context.CancelCauseFunc
	waiters int // guarded by flights.mu; 0 means given up
}

// errAbandoned is why a run is cancelled when nobody waits for it any more.
var errAbandoned = errors.New("nobody waits for it any more")

// do runs work for key, or joins the run that is under way. The work's context
// keeps the values of its first caller's, but is cancelled only when the last
// caller left. A caller that joined a run which failed tries again on its own
// account, because its means, such as its source, may be others.
func (f *flights) do(ctx context.Context, key digest.Digest, work func(context.Context) error) error {
	for {
		fl, joined := f.join(ctx, key, work)
		err, left := f.wait(ctx, fl)
		if left || err == nil || !joined {
			return err
		}
	}
}

// join adds a waiter to the flight of key, and starts it when there is none.
func (f *flights) join(ctx context.Context, key digest.Digest, work func(context.Context) error) (_ *flight, joined bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if fl := f.flying[key]; fl != nil {
		if fl.waiters > 0 {
			fl.waiters++
		}
		return fl, true // when it was given up: wait for its end, then try again
	}
	if f.flying == nil {
		f.flying = map[digest.Digest]*flight{}
	}
	runCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	fl := &flight{done: make(chan struct{}), cancel: cancel, waiters: 1}
	f.flying[key] = fl
	go func() {
		defer cancel(nil)
		err := work(runCtx)
		f.mu.Lock()
		delete(f.flying, key)
		f.mu.Unlock()
		fl.err = err
		close(fl.done)
	}()
	return fl, false
}

// wait returns the flight's error, or the reason why ctx ended; left is true then.
func (f *flights) wait(ctx context.Context, fl *flight) (err error, left bool) {
	select {
	case <-fl.done:
		return fl.err, false
	case <-ctx.Done():
	}
	f.mu.Lock()
	last := fl.waiters == 1
	if fl.waiters > 0 {
		fl.waiters--
	}
	f.mu.Unlock()
	if last {
		fl.cancel(errAbandoned)
		<-fl.done
	}
	return context.Cause(ctx), true
}
