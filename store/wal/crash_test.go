package wal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/internal/invariant"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// expectation is a state that a recovery may find.
type expectation struct {
	commit, last, snapshot uint64
	keep                   uint64 // the entries after it must be there
}

// fits reports whether a state is the expected one.
func (e expectation) fits(s *State) bool {
	first, last := e.keep+1, uint64(0)
	if n := len(s.Entries); n > 0 {
		first, last = s.Entries[0].GetIndex(), s.Entries[n-1].GetIndex()
	}
	return e.commit == s.HardState.GetCommit() && e.snapshot == s.Snapshot.GetIndex() && e.last == last && first <= e.keep+1
}

// recoverAt opens what a crash left, and checks that it is one of the states allowed.
func recoverAt(t *testing.T, point string, after *vfs.Mem, kek seal.Key, allowed ...expectation) {
	t.Helper()
	defer after.Close()
	w, state, err := Open(small(after), kek)
	if err != nil {
		t.Fatalf("%s: %v", point, err)
	}
	defer w.Close()
	for _, e := range state.Entries {
		if !proto.Equal(e, entry(e.GetIndex(), e.GetTerm())) {
			t.Fatalf("%s: entry %d has another content", point, e.GetIndex())
		}
	}
	if found, err := after.Contains([]byte(canary[:16])); err != nil || found {
		t.Fatalf("%s: the canary is on disk: %v", point, err)
	}
	for _, a := range allowed {
		if a.fits(state) {
			goOn(t, point, w, state, kek)
			return
		}
	}
	t.Fatalf("%s: recovered commit %d, snapshot %d, %d entries, want one of %+v", point, state.HardState.GetCommit(), state.Snapshot.GetIndex(), len(state.Entries), allowed)
}

// goOn makes sure that a recovered log is one to go on with: what a crash cut short is not in the way.
func goOn(t *testing.T, point string, w *WAL, state *State, kek seal.Key) {
	t.Helper()
	next := state.Snapshot.GetIndex() + 1
	if n := len(state.Entries); n > 0 {
		next = state.Entries[n-1].GetIndex() + 1
	}
	if err := w.Save(Batch{hard(99, next), entries(next, next, 99)}); err != nil {
		t.Fatalf("%s: %v", point, err)
	}
	w, state = reopen(t, w, kek)
	if last := state.Entries[len(state.Entries)-1]; last.GetIndex() != next || last.GetTerm() != 99 || state.Torn {
		t.Fatalf("%s: after a write to the recovered log, it ends at %d/%d, torn %v", point, last.GetTerm(), last.GetIndex(), state.Torn)
	}
	// Nor is it when the segments before the one with that write go.
	meta := snapshot(next, 99, 0).Metadata
	if err := errors.Join(save(w, snapshot(next, 99, 10)), w.Compact(meta, next)); err != nil {
		t.Fatalf("%s: %v", point, err)
	}
	w, state = reopen(t, w, kek)
	defer w.Close()
	if state.Snapshot.GetIndex() != next {
		t.Fatalf("%s: after the recovered log was compacted, its snapshot is %d", point, state.Snapshot.GetIndex())
	}
}

// A crash during Create leaves nothing, which Create then clears, or a complete store.
func TestCreate_SurvivesEveryCrashPoint(t *testing.T) {
	m, kek := newMem(t), seal.NewKey()
	points := 0
	m.OnWrite(func() {
		for seed := range uint64(8) {
			random := rand.New(rand.NewPCG(seed, uint64(points)))
			if seed == 0 {
				random = nil
			}
			after, err := m.Crash(random)
			if err != nil {
				t.Fatal(err)
			}
			points++
			_, _, err = Inspect(after, "/d")
			if errors.Is(err, ErrNone) {
				err = Create(small(after), "c1", kek, seal.SourceKeyFile, identity, start())
			}
			if err != nil {
				t.Fatalf("point %d: %v", points, err)
			}
			recoverAt(t, fmt.Sprint("point ", points), after, kek, expectation{commit: 1, snapshot: 1, keep: 1})
		}
	})
	create(t, m, kek).Close()
	if points < 100 {
		t.Errorf("only %d points", points)
	}
}

// workload is a life of a log; step returns the state that is acknowledged after it.
type workload struct {
	w     *WAL
	now   expectation
	term  uint64
	steps int
}

func (l *workload) step(random *rand.Rand) (next expectation, do func() error) {
	next = l.now
	l.steps++
	last := max(l.now.last, l.now.snapshot)
	switch kind := random.IntN(40); {
	case kind < 4 && l.now.commit > l.now.snapshot:
		meta := snapshot(l.now.commit, l.term, 0).Metadata
		keep := l.now.commit - min(3, l.now.commit-1)
		next.snapshot, next.keep = l.now.commit, max(l.now.keep, keep)
		return next, func() error {
			return errors.Join(save(l.w, snapshot(meta.GetIndex(), meta.GetTerm(), 2000)), l.w.Compact(meta, keep))
		}
	case kind == 4:
		l.term++
		next = expectation{commit: last + 5, snapshot: last + 5, keep: last + 5}
		return next, func() error { return l.w.Install(snapshot(last+5, l.term, 1000), hard(l.term, last+5)) }
	case kind == 5:
		return next, l.w.Rotate
	case kind == 6:
		return next, l.w.Prepare
	case kind < 10 && last > l.now.commit: // another leader's entries
		l.term++
		from := l.now.commit + 1
		next.last = from + 1
		return next, func() error { return l.w.Save(Batch{hard(l.term, l.now.commit), entries(from, from+1, l.term)}) }
	default:
		n := uint64(1 + random.IntN(3))
		if kind == 11 {
			n = 50 // more than a segment
		}
		next.last = last + n
		next.commit = last
		return next, func() error { return l.w.Save(Batch{hard(l.term, last), entries(last+1, last+n, l.term)}) }
	}
}

// Every prefix of what the file system was asked to do recovers to the state before the operation or after it, and to the state
// after it once the operation returned; with nothing that was not synced, and with any part of it, torn and in any order (I2).
// Nothing is ever in the clear (I11).
func TestWAL_SurvivesEveryCrashPoint(t *testing.T) {
	operations, tears := 2000, uint64(2)
	if testing.Short() || invariant.Enabled { // with the race detector all of them take minutes; make test does them without
		operations = 200
	}
	m, kek := newMem(t), seal.NewKey()
	points := 0
	var allowed []expectation
	m.OnWrite(func() {
		if len(allowed) == 0 {
			return
		}
		for seed := range 1 + tears {
			random := rand.New(rand.NewPCG(seed, uint64(points)))
			if seed == 0 {
				random = nil
			}
			after, err := m.Crash(random)
			if err != nil {
				t.Fatal(err)
			}
			points++
			recoverAt(t, fmt.Sprint("point ", points), after, kek, allowed...)
		}
	})
	random := rand.New(rand.NewPCG(1, 2))
	l := &workload{w: create(t, m, kek), now: expectation{commit: 1, snapshot: 1, keep: 1}, term: 2}
	defer func() { l.w.Close() }()
	for range operations {
		next, do := l.step(random)
		allowed = []expectation{l.now, next}
		if err := do(); err != nil {
			t.Fatal(err)
		}
		l.now, allowed = next, []expectation{next}
		m.Checkpoint()
	}
	allowed = nil
	t.Logf("%d crash points in %d operations", points, operations)
	if points < 5*operations {
		t.Errorf("only %d points", points)
	}
}

func BenchmarkSave(b *testing.B) {
	kek := seal.NewKey()
	dir := b.TempDir() + "/raft"
	if err := Create(Disk{FS: vfs.OS{}, Dir: dir}, "c1", kek, seal.SourceKeyFile, identity, start()); err != nil {
		b.Fatal(err)
	}
	w, _, err := Open(Disk{FS: vfs.OS{}, Dir: dir}, kek)
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	index := uint64(1)
	for b.Loop() {
		index++
		if err := w.Save(Batch{hard(2, index-1), []*raftpb.Entry{entry(index, 2)}}); err != nil {
			b.Fatal(err)
		}
	}
}
