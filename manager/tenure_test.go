package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/store"
)

// office is a leadership that a test gives and takes, and what its loops did.
type office struct {
	mu      sync.Mutex
	now     store.Leadership
	changed chan struct{}
	log     []string
	fail    chan error
}

func (o *office) set(self bool, term uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.now = store.Leadership{Self: self, Term: term}
	close(o.changed)
	o.changed = make(chan struct{})
}

func (o *office) leadership() (store.Leadership, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.now, o.changed
}

func (o *office) note(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.log = append(o.log, fmt.Sprintf(format, args...))
}

func (o *office) loops() ([]loop, error) {
	leadership, _ := o.leadership()
	return []loop{{"slow to stop", func(ctx context.Context) error {
		o.note("start %d", leadership.Term)
		var err error
		select {
		case <-ctx.Done():
		case err = <-o.fail:
		}
		time.Sleep(time.Second)
		o.note("end %d", leadership.Term)
		return err
	}}}, nil
}

// inOffice runs tenures in a bubble, and returns what the loops did.
func inOffice(t *testing.T, play func(o *office)) []string {
	t.Helper()
	var log []string
	synctest.Test(t, func(t *testing.T) {
		o := &office{changed: make(chan struct{}), fail: make(chan error)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		tenures := &tenures{leadership: o.leadership, loops: o.loops, logger: slog.New(slog.DiscardHandler)}
		go func() { done <- tenures.run(ctx) }()
		play(o)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		log = o.log
	})
	return log
}

func TestTenures_LoopsOfOneEndBeforeTheNextBegins(t *testing.T) {
	got := inOffice(t, func(o *office) {
		o.set(true, 1)
		synctest.Wait()
		o.set(false, 2)
		synctest.Wait()
		o.set(true, 3) // while the loops of term 1 are still stopping
		time.Sleep(time.Minute)
		o.set(true, 4) // lost and won again, unnoticed
		time.Sleep(time.Minute)
	})
	want := []string{"start 1", "end 1", "start 3", "end 3", "start 4", "end 4"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("loops (-want +got):\n%s", diff)
	}
}

func TestTenures_FollowerRunsNoLoops(t *testing.T) {
	got := inOffice(t, func(o *office) {
		o.set(false, 1)
		time.Sleep(time.Minute)
	})
	if len(got) > 0 {
		t.Errorf("a follower's loops did %v", got)
	}
}

func TestTenures_LoopsStartAgainAfterAFailure(t *testing.T) {
	got := inOffice(t, func(o *office) {
		o.set(true, 1)
		o.fail <- errors.New("disk on fire")
		time.Sleep(time.Minute)
		o.fail <- nil // ended by itself
		time.Sleep(time.Minute)
	})
	want := []string{"start 1", "end 1", "start 1", "end 1", "start 1", "end 1"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("loops (-want +got):\n%s", diff)
	}
}
