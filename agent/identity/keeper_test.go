package identity

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/grpctest"
	"github.com/skep-io/skep/runtime/lsm"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// swarm is the managers of a Keeper, and what it logs.
type swarm struct {
	clusterID string

	mu sync.Mutex
	// The fields below are guarded by mu.
	root    *ca.Root
	roots   []*x509.Certificate
	changed chan struct{}
	fail    error             // what Ask returns
	refuse  map[string]string // by task
	behind  time.Duration     // of the managers' clocks
	batches []int             // sizes
	tries   []time.Time
	logged  map[slog.Level][]time.Time
}

func newSwarm(t *testing.T) *swarm {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	return &swarm{
		clusterID: catest.NewID(), root: root, roots: []*x509.Certificate{root.Certificate()}, changed: make(chan struct{}),
		refuse: map[string]string{}, logged: map[slog.Level][]time.Time{},
	}
}

func (s *swarm) trusted() ([]*x509.Certificate, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roots, s.changed
}

// rotate makes a new root sign, and both trusted.
func (s *swarm) rotate(t *testing.T) {
	t.Helper()
	root, err := ca.NewRoot()
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.root, s.roots = root, append(s.roots[:1:1], root.Certificate())
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *swarm) set(fail error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = fail
}

func (s *swarm) ask(_ context.Context, requests []*api.WorkloadRequest) ([]*api.WorkloadAnswer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches, s.tries = append(s.batches, len(requests)), append(s.tries, time.Now())
	if s.fail != nil {
		return nil, s.fail
	}
	var out []*api.WorkloadAnswer
	for _, r := range requests {
		if why := s.refuse[r.GetTaskId()]; why != "" {
			out = append(out, &api.WorkloadAnswer{Refusal: why})
			continue
		}
		chain, err := s.root.IssueWorkload(time.Now().Add(-s.behind), r.GetCsr(), ca.Workload{ClusterID: s.clusterID, Service: r.GetTaskId(), Slot: 1})
		if err != nil {
			return nil, err
		}
		out = append(out, &api.WorkloadAnswer{Certificate: chain})
	}
	return out, nil
}

// Enabled implements slog.Handler.
func (s *swarm) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (s *swarm) Handle(_ context.Context, r slog.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logged[r.Level] = append(s.logged[r.Level], r.Time)
	return nil
}

// WithAttrs implements slog.Handler.
func (s *swarm) WithAttrs([]slog.Attr) slog.Handler { return s }

// WithGroup implements slog.Handler.
func (s *swarm) WithGroup(string) slog.Handler { return s }

// shelf is a home of the tests.
type shelf struct {
	name     string
	listener *grpctest.Listener

	mu sync.Mutex
	// The fields below are guarded by mu.
	shown   []svid
	roots   []*x509.Certificate
	removed bool
}

func (h *shelf) path() string                  { return h.name }
func (h *shelf) listen() (net.Listener, error) { return h.listener, nil }
func (h *shelf) load() svid                    { return svid{} }
func (h *shelf) close() error                  { return nil }

func (h *shelf) remove() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.removed = true
	return nil
}

func (h *shelf) update(s svid, roots []*x509.Certificate) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.roots = roots
	if !s.isZero() {
		h.shown = append(h.shown, s)
	}
	return nil
}

// look returns what was shown since the last look.
func (h *shelf) look() []svid {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := h.shown
	h.shown = nil
	return out
}

// bench is a Keeper in a bubble, that runs until the test ends.
type bench struct {
	*swarm
	keeper  *Keeper
	changes atomic.Int64 // of the issuers, as they were told

	mu      sync.Mutex
	shelves map[string]*shelf // by path; guarded by mu
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{swarm: newSwarm(t), shelves: map[string]*shelf{}}
	k, err := New(Config{
		Dir: t.TempDir(), ClusterID: b.clusterID, Roots: b.trusted, Ask: b.ask, Logger: slog.New(b.swarm),
		Changed: func() { b.changes.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	k.make = func(path string, _, _ uint32, _ lsm.Labels) (home, error) {
		b.mu.Lock()
		defer b.mu.Unlock()
		h := &shelf{name: path, listener: grpctest.Listen()}
		b.shelves[path] = h
		return h, nil
	}
	b.keeper = k
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, k.Close()); err != nil {
			t.Error(err)
		}
	})
	return b
}

// provide starts a task and returns where it finds its identity.
func (b *bench) provide(t *testing.T, id string) *shelf {
	t.Helper()
	dir, err := b.keeper.Provide(id, 1, 1, lsm.Labels{})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.keeper.Await(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.shelves[dir]
}

func TestKeeper_RenewsWithANewKeyWellBeforeTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.provide(t, "web")
		first := h.look()
		if len(first) != 1 || !first[0].valid(time.Now()) || first[0].name.SPIFFEID() != "spiffe://"+b.clusterID+"/service/web/task/1" {
			t.Fatalf("%d SVIDs at the start", len(first))
		}
		<-time.After(20 * time.Hour)
		all := append(first, h.look()...)
		for i, s := range all[1:] {
			before := all[i]
			age := s.chain[0].NotBefore.Sub(before.chain[0].NotBefore)
			if age < 30*time.Minute || age > 48*time.Minute+time.Second {
				t.Errorf("renewed after %v of an hour", age)
			}
			if before.key().Equal(s.key()) {
				t.Error("W1: a key is used again")
			}
		}
		if len(all) < 25 {
			t.Errorf("%d SVIDs in 20 hours", len(all))
		}
	})
}

func TestKeeper_ServesWhatItHasWhileNoManagerAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.provide(t, "web")
		ends := h.look()[0].chain[0].NotAfter
		b.set(fault.New(fault.Unavailable, "no manager"))
		<-time.After(time.Until(ends) - time.Second)
		b.swarm.mu.Lock()
		tries, alarms := len(b.tries)-1, b.logged[slog.LevelError]
		b.swarm.mu.Unlock()
		if tries < 4 || tries > 60 {
			t.Errorf("%d tries before the end", tries)
		}
		if len(alarms) == 0 || ends.Sub(alarms[0]) < time.Minute {
			t.Errorf("nobody is told in time: alarms at %v, the end is at %v", alarms, ends)
		}
		api := b.client(t, h)
		got, err := api.FetchX509SVID(t.Context())
		if err != nil || !got.Certificates[0].NotAfter.Equal(ends) {
			t.Errorf("a second before its end: %v", err)
		}
		<-time.After(2 * time.Second)
		early, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := api.FetchX509SVID(early); err == nil {
			t.Error("an SVID is served after its end")
		}
		<-time.After(100 * time.Hour)
		b.set(nil)
		now := time.Now()
		b.keeper.Retry() // as when a session begins
		synctest.Wait()
		fresh := h.look()
		if len(fresh) != 1 || !fresh[0].chain[0].NotBefore.Equal(now.Add(-ca.Backdate).Truncate(time.Second)) {
			t.Errorf("%d SVIDs once a manager answers", len(fresh))
		}
	})
}

func TestKeeper_FollowsTheRoots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.provide(t, "web")
		h.look()
		<-time.After(time.Minute)
		b.rotate(t)
		synctest.Wait()
		shown := h.look()
		last := shown[len(shown)-1]
		if err := last.chain[0].CheckSignatureFrom(b.root.Certificate()); err != nil || len(h.roots) != 2 {
			t.Errorf("%d roots, and the SVID is by another one: %v", len(h.roots), err)
		}
		<-time.After(29 * time.Minute)
		if more := h.look(); len(more) > 0 {
			t.Errorf("%d more SVIDs", len(more))
		}
	})
}

// Managers hear by whom the tasks' identities are: a root is dropped only when none is by it any more.
func TestKeeper_SaysWhoSignedTheSVIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		by := func(root *ca.Root) []byte {
			target, err := ca.TargetOf(&api.RootCA{Certificate: root.CertificatePEM()})
			if err != nil {
				t.Fatal(err)
			}
			return target.KeyDigest
		}
		want := func(what string, digests ...[]byte) {
			t.Helper()
			if got := b.keeper.Issuers(); !slices.EqualFunc(got, digests, bytes.Equal) {
				t.Errorf("%s: %d issuers, or others than the %d that signed", what, len(got), len(digests))
			}
		}
		want("without tasks")
		b.provide(t, "web")
		b.provide(t, "db")
		former := b.root
		want("before", by(former))
		<-time.After(2 * time.Minute)
		told := b.changes.Load()
		b.set(errors.New("no manager"))
		b.rotate(t)
		synctest.Wait()
		want("while no manager answers", by(former))
		b.set(nil)
		b.keeper.Retry()
		<-time.After(2 * time.Minute)
		want("after", by(b.root))
		if b.changes.Load() == told {
			t.Error("nobody was told")
		}
		told = b.changes.Load()
		for _, id := range []string{"web", "db"} {
			if err := b.keeper.Withdraw(id); err != nil {
				t.Fatal(err)
			}
		}
		want("when the tasks have ended")
		if b.changes.Load() == told {
			t.Error("nobody was told of the end of the tasks")
		}
	})
}

func TestAwait_WaitsALittle(t *testing.T) {
	for what, c := range map[string]struct {
		fail error
		want time.Duration
	}{
		"a manager answers":   {nil, 0},
		"none can be reached": {fault.New(fault.Unavailable, "no manager"), startPatience},
		"none knows how":      {fault.New(fault.Precondition, "an old version"), 0},
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				b.set(c.fail)
				begun := time.Now()
				h := b.provide(t, "web")
				if waited := time.Since(begun); waited != c.want {
					t.Errorf("waited %v, want %v", waited, c.want)
				}
				b.set(nil)
				<-time.After(time.Minute + time.Second)
				if got := len(h.look()); got != 1 {
					t.Errorf("%d SVIDs a minute later", got)
				}
			})
		})
	}
}

func TestAwait_EndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.set(fault.New(fault.Unavailable, "no manager"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.keeper.Provide("web", 1, 1, lsm.Labels{}); err != nil {
			t.Fatal(err)
		}
		if err := b.keeper.Await(ctx, "web"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

func TestKeeper_ARefusalIsOfOneTask(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.refuse["gone"] = "task gone is to stop"
		gone, web := b.provide(t, "gone"), b.provide(t, "web")
		if len(gone.look()) > 0 || len(web.look()) != 1 {
			t.Error("a refused task has an SVID, or the other one has none")
		}
		b.swarm.mu.Lock()
		before := len(b.tries)
		b.swarm.mu.Unlock()
		<-time.After(25 * time.Minute)
		b.swarm.mu.Lock()
		defer b.swarm.mu.Unlock()
		if asked := len(b.tries) - before; asked != 2 {
			t.Errorf("asked %d times in 25 minutes about a task that was refused", asked)
		}
	})
}

func TestKeeper_AsksInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.set(fault.New(fault.Precondition, "not yet"))
		const tasks = 150
		for i := range tasks {
			b.provide(t, fmt.Sprintf("task%d", i))
		}
		b.swarm.mu.Lock()
		b.fail, b.batches = nil, nil
		b.swarm.mu.Unlock()
		b.keeper.Retry()
		synctest.Wait()
		b.swarm.mu.Lock()
		defer b.swarm.mu.Unlock()
		if got := fmt.Sprint(b.batches); got != "[64 64 22]" {
			t.Errorf("batches of %s", got)
		}
	})
}

func TestKeeper_ADifferenceOfClocksIsNoStorm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.behind = 3 * time.Hour
		b.provide(t, "web")
		<-time.After(time.Hour)
		b.swarm.mu.Lock()
		defer b.swarm.mu.Unlock()
		if len(b.tries) > 61 {
			t.Errorf("Q5: %d tries in an hour", len(b.tries))
		}
	})
}

func TestWithdraw_LeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		h := b.provide(t, "web")
		h.look()
		if err := errors.Join(b.keeper.Withdraw("web"), b.keeper.Withdraw("web")); err != nil {
			t.Fatal(err)
		}
		<-time.After(2 * time.Hour)
		if !h.removed || len(h.look()) > 0 {
			t.Error("a withdrawn identity is kept")
		}
	})
}

func TestKeeper_TakesNoIdentityOfAnotherSwarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.clusterID = catest.NewID()
		if h := b.provide(t, "web"); len(h.look()) > 0 {
			t.Error("an SVID of another trust domain is served")
		}
	})
}

func TestSVID_PrintsAsRedacted(t *testing.T) {
	s := newSwarm(t)
	b, err := newBatch([]string{"web"})
	if err != nil {
		t.Fatal(err)
	}
	if b.answers, err = s.ask(t.Context(), b.requests); err != nil {
		t.Fatal(err)
	}
	v, err := b.svid(0)
	if err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		if out := fmt.Sprintf(verb, v); !strings.Contains(out, redacted) || len(out) > 2*len(redacted) {
			t.Errorf("%s prints %s", verb, out)
		}
	}
	if _, err := newSVID(b.answers[0].GetCertificate(), func() *batch { other, _ := newBatch([]string{"x"}); return &other }().keys[0]); !errors.Is(err, errMismatch) {
		t.Errorf("with another key: %v", err)
	}
}
