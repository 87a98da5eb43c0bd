package wal

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// expectation is a state that a recovery may find.
type expectation struct {
	commit, first, last, snapshot uint64
}

func expect(s *State) expectation {
	e := expectation{commit: s.HardState.GetCommit(), snapshot: s.Snapshot.GetMetadata().GetIndex()}
	if len(s.Entries) > 0 {
		e.first, e.last = s.Entries[0].GetIndex(), s.Entries[len(s.Entries)-1].GetIndex()
	}
	return e
}

// recoverAt opens what a crash left, and checks that it is one of the states allowed.
func recoverAt(t *testing.T, point string, after *vfs.Mem, kek seal.Key, allowed ...expectation) {
	t.Helper()
	defer after.Close()
	w, state, err := Open(after, "/d", kek)
	if err != nil {
		t.Fatalf("%s: %v", point, err)
	}
	defer w.Close()
	for _, e := range state.Entries {
		if !proto.Equal(e, entry(e.GetIndex(), e.GetTerm())) {
			t.Fatalf("%s: entry %d has another content", point, e.GetIndex())
		}
	}
	got := expect(state)
	for _, a := range allowed {
		if got == a {
			return
		}
	}
	t.Fatalf("%s: recovered %+v, want one of %+v", point, got, allowed)
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
				err = Create(after, "/d", "c1", kek, seal.SourceKeyFile, identity, start())
			}
			if err != nil {
				t.Fatalf("point %d: %v", points, err)
			}
			recoverAt(t, fmt.Sprint("point ", points), after, kek, expectation{commit: 1, snapshot: 1})
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
	switch kind := random.IntN(10); {
	case kind == 0 && l.now.commit > l.now.snapshot:
		meta := snapshot(l.now.commit, l.term, 0).Metadata
		keep := l.now.commit - min(3, l.now.commit-1)
		next.snapshot = l.now.commit
		if l.now.first <= keep {
			next.first = keep + 1
		}
		return next, func() error {
			return errors.Join(l.w.WriteSnapshot(snapshot(meta.GetIndex(), meta.GetTerm(), 5000)), l.w.Compact(meta, keep))
		}
	case kind == 1 && random.IntN(3) == 0:
		l.term++
		next = expectation{commit: last + 5, snapshot: last + 5}
		return next, func() error { return l.w.Install(snapshot(last+5, l.term, 3000), hard(l.term, last+5)) }
	case kind == 2 && last > l.now.commit: // another leader's entries
		l.term++
		from := l.now.commit + 1
		next.last = from + 1
		if l.now.first == 0 {
			next.first = from
		}
		return next, func() error { return l.w.Save(Batch{hard(l.term, l.now.commit), entries(from, from+1, l.term)}) }
	default:
		n := uint64(1 + random.IntN(3))
		next.last = last + n
		next.commit = last
		if l.now.first == 0 {
			next.first = last + 1
		}
		return next, func() error { return l.w.Save(Batch{hard(l.term, last), entries(last+1, last+n, l.term)}) }
	}
}

// Every prefix of what the file system was asked to do recovers to the state before the operation or after it; after it
// once the operation returned. This covers the files beside the database.
func TestWAL_SurvivesEveryCrashPointOfItsFiles(t *testing.T) {
	m, kek := newMem(t), seal.NewKey()
	points := 0
	var allowed []expectation
	m.OnWrite(func() {
		if len(allowed) == 0 {
			return
		}
		for seed := range uint64(3) {
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
	l := &workload{w: create(t, m, kek), now: expectation{commit: 1, snapshot: 1}, term: 2}
	defer l.w.Close()
	for range 300 {
		next, do := l.step(random)
		allowed = []expectation{l.now, next}
		if err := do(); err != nil {
			t.Fatal(err)
		}
		l.now = next
	}
	allowed = nil
	t.Logf("%d crash points", points)
	if points < 500 {
		t.Errorf("only %d points", points)
	}
}

const page = 4096

// image is the database file.
func image(t *testing.T, m *vfs.Mem) []byte {
	t.Helper()
	f, err := m.OpenOS("/d/raft.db", os.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// crashed returns the file system with another database file.
func crashed(t *testing.T, m *vfs.Mem, database []byte) *vfs.Mem {
	t.Helper()
	after, err := m.Crash(nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := after.OpenOS("/d/raft.db", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(database, 0)
	if err = errors.Join(err, f.Truncate(int64(len(database))), f.Close()); err != nil {
		t.Fatal(err)
	}
	return after
}

// torn returns before with some of the changes of one bbolt transaction: bbolt writes its pages, syncs, writes one of the two
// meta pages, and syncs again. So without the meta page any sectors of the others may be there; with it, all are.
func torn(before, after []byte, random *rand.Rand, metaToo bool) []byte {
	got := make([]byte, max(len(before), len(after)))
	copy(got, before)
	for at := 0; at < len(after); at += 512 {
		end := min(at+512, len(after))
		if at < len(before) && bytes.Equal(before[at:min(end, len(before))], after[at:end]) {
			continue
		}
		isMeta := at < 2*page
		if isMeta && metaToo || !isMeta && (metaToo || random.IntN(3) > 0) {
			copy(got[at:end], after[at:end])
		}
	}
	return got
}

// Inside the database: torn and reordered sectors of any transaction recover to the state before it or after it.
func TestWAL_SurvivesTornWritesOfTheDatabase(t *testing.T) {
	m, kek := newMem(t), seal.NewKey()
	random := rand.New(rand.NewPCG(3, 4))
	l := &workload{w: create(t, m, kek), now: expectation{commit: 1, snapshot: 1}, term: 2}
	defer l.w.Close()
	points := 0
	for range 60 {
		next, do := l.step(random)
		files, err := m.Crash(nil)
		if err != nil {
			t.Fatal(err)
		}
		before := image(t, m)
		if err := do(); err != nil {
			t.Fatal(err)
		}
		after := image(t, m)
		if next.snapshot == l.now.snapshot { // else the files beside the database changed too, see the other test
			for range 5 {
				points++
				recoverAt(t, fmt.Sprint("without meta page ", points), crashed(t, files, torn(before, after, random, false)), kek, l.now)
			}
		}
		recoverAt(t, fmt.Sprint("complete ", points), crashed(t, m, torn(before, after, random, true)), kek, next)
		points++
		files.Close()
		l.now = next
	}
	t.Logf("%d crash points", points)
}

func BenchmarkSave(b *testing.B) {
	kek := seal.NewKey()
	dir := b.TempDir() + "/raft"
	if err := Create(vfs.OS{}, dir, "c1", kek, seal.SourceKeyFile, identity, start()); err != nil {
		b.Fatal(err)
	}
	w, _, err := Open(vfs.OS{}, dir, kek)
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
