package store_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

func event(text string) []byte { return chain.Encode(&api.AuditEvent{Summary: text}) }

// record writes events into the audit log, in one transaction.
func record(t *testing.T, s *store.Store, events ...[]byte) {
	t.Helper()
	err := s.Update(t.Context(), "", func(tx store.Tx) error {
		for _, e := range events {
			if err := tx.Audit(e); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// recorded returns the summaries in the audit log, after checking its chain from the oldest segment to the head.
func recorded(t *testing.T, s *store.Store) (texts []string) {
	t.Helper()
	segments := storetest.List[*api.AuditSegment](t, s)
	if len(segments) == 0 {
		return nil
	}
	state, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	v, err := chain.NewVerifier(state.GetClusterId(), chain.Anchor(segments[0]))
	for _, segment := range segments {
		err = errors.Join(err, chain.CheckSegment(segment))
		for link, linkErr := range chain.Links(segment) {
			e, entryErr := link.Entry()
			if err = errors.Join(err, linkErr, entryErr); err == nil {
				err = v.Add(e)
			}
			texts = append(texts, e.GetEvent().GetSummary())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if head := headOf(t, s); head.GetSequence() != v.Head().GetSequence() || string(head.GetHash()) != string(v.Head().GetHash()) {
		t.Fatalf("the chain leads to %v, the head is %v", v.Head(), head)
	}
	return texts
}

func headOf(t *testing.T, s *store.Store) (head *api.AuditHead) {
	t.Helper()
	err := s.View(func(tx store.ReadTx) (err error) {
		head, err = store.AuditHead(tx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func TestAudit_EntriesAreChainedOverManySegments(t *testing.T) {
	s := storetest.New(t)
	if headOf(t, s) != nil {
		t.Error("a log that nobody began has a head")
	}
	w, err := s.Watch(t.Context(), 0, object.KindAuditSegment)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for i := range 300 {
		var events [][]byte
		for j := range i % 7 {
			want = append(want, fmt.Sprintf("%d.%d %s", i, j, strings.Repeat("x", i%200)))
			events = append(events, event(want[len(want)-1]))
		}
		record(t, s, events...)
	}
	if got := recorded(t, s); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	segments := storetest.List[*api.AuditSegment](t, s)
	if len(segments) < 2 {
		t.Fatalf("%d segments", len(segments))
	}
	for i, segment := range segments {
		if segment.GetId() != object.SequenceID(segment.GetFirst()) || len(segment.GetEntries()) > 64<<10 {
			t.Errorf("segment %d: %s from %d, %d bytes", i, segment.GetId(), segment.GetFirst(), len(segment.GetEntries()))
		}
	}
	seen := uint64(0)
	for seen < uint64(len(want)) {
		batch, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range batch.Changes {
			old, now := change.Old, change.Object.(*api.AuditSegment)
			if (old == nil) != (change.Action == store.ActionCreate) || chain.Head(now).GetSequence() <= seen {
				t.Fatalf("change %v after entry %d", change, seen)
			}
			seen = chain.Head(now).GetSequence()
		}
	}
}

func TestAudit_SegmentOfFindsEntries(t *testing.T) {
	s := storetest.New(t)
	for i := range 40 {
		record(t, s, event(fmt.Sprint(i)), chain.Encode(&api.AuditEvent{Method: strings.Repeat("m", 250), Caller: strings.Repeat("c", 250), Summary: strings.Repeat("s", 250)}))
	}
	last := headOf(t, s).GetSequence()
	for sequence := uint64(0); sequence <= last+1; sequence++ {
		err := s.View(func(tx store.ReadTx) error {
			segment, err := store.SegmentOf(tx, sequence)
			if err == nil && (sequence < segment.GetFirst() || sequence > chain.Head(segment).GetSequence()) {
				t.Errorf("entry %d is looked for in the segment from %d", sequence, segment.GetFirst())
			}
			return err
		})
		if there := sequence > 0 && sequence <= last; there != (err == nil) || !there && !errors.Is(err, store.ErrNotFound) {
			t.Errorf("entry %d: %v", sequence, err)
		}
	}
}

// The log is what it was, whoever is inside a manager: nothing but its oldest part can go.
func TestAudit_OnlyTheOldestSegmentsCanGo(t *testing.T) {
	s := storetest.New(t)
	for range 700 {
		record(t, s, event(strings.Repeat("x", 250)))
	}
	segments := storetest.List[*api.AuditSegment](t, s)
	if len(segments) < 3 {
		t.Fatalf("%d segments", len(segments))
	}
	drop := func(which ...int) error {
		return update(t, s, func(tx store.Tx) error {
			for _, i := range which {
				if err := tx.Delete(object.KindAuditSegment, segments[i].GetId()); err != nil {
					return err
				}
			}
			return nil
		})
	}
	all := make([]int, len(segments))
	for i := range all {
		all[i] = i
	}
	for _, which := range [][]int{{1}, {len(segments) - 1}, {1, 0}, all} {
		if err := drop(which...); !errors.Is(err, store.ErrConflict) {
			t.Errorf("drop %v: %v", which, err)
		}
	}
	forged := proto.CloneOf(segments[0])
	forged.Entries = nil
	for name, change := range map[string]func(store.Tx) error{
		"create": func(tx store.Tx) error { return tx.Create(&api.AuditSegment{Id: "x"}) },
		"update": func(tx store.Tx) error { return tx.Update(forged) },
	} {
		if err := update(t, s, change); !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	before := len(recorded(t, s))
	if err := drop(0, 1); err != nil {
		t.Fatal(err)
	}
	if got := len(recorded(t, s)); got != before-int(segments[0].GetCount()+segments[1].GetCount()) {
		t.Errorf("%d of %d entries are left", got, before)
	}
}

// rider counts what a Rider is told.
type rider struct {
	events    []store.Change
	committed int
}

func (r *rider) Event(changes []store.Change) []byte {
	r.events = changes
	return event(fmt.Sprintf("%v %s", changes[0].Action, object.Name(changes[0].Object)))
}

func (r *rider) Committed() { r.committed++ }

func TestAudit_AChangeHasItsEntryAndAnEntryItsChange(t *testing.T) {
	s := storetest.New(t)
	r := new(rider)
	ctx := store.WithRider(t.Context(), r)
	create := func(tx store.Tx) error { return tx.Create(service("a", "web")) }
	if err := s.Update(ctx, "request", create); err != nil {
		t.Fatal(err)
	}
	for name, do := range map[string]func(store.Tx) error{
		"refused": create,
		"nothing": func(store.Tx) error { return nil },
		"a check": func(tx store.Tx) error {
			tx.RequireKind(object.KindNode)
			return nil
		},
	} {
		_ = s.Update(ctx, "", do)
		if r.committed != 1 {
			t.Errorf("%s: an entry was written", name)
		}
	}
	if err := s.Update(ctx, "request", create); !errors.Is(err, store.ErrDuplicate) {
		t.Errorf("a repetition: %v", err)
	}
	// One whose first try loses against another is made anew, with its event.
	tries := 0
	err := s.Update(ctx, "", func(tx store.Tx) error {
		if tries++; tries == 1 {
			changed := service("a", "shop")
			changed.Meta = storetest.Get[*api.Service](t, s, "a").GetMeta()
			if err := update(t, s, func(tx store.Tx) error { return tx.Update(changed) }); err != nil {
				return err
			}
		}
		return tx.Delete(object.KindService, "a")
	})
	if err != nil || tries != 2 {
		t.Fatalf("%d tries: %v", tries, err)
	}
	if got := strings.Join(recorded(t, s), ", "); got != "create web, delete shop" || r.committed != 2 {
		t.Errorf("the log says %q, the rider was told of %d", got, r.committed)
	}
}

func TestAudit_AnEventHasALimit(t *testing.T) {
	var limit *store.LimitError
	err := update(t, storetest.New(t), func(tx store.Tx) error { return tx.Audit(make([]byte, 5000)) })
	if !errors.As(err, &limit) {
		t.Errorf("an event of 5000 bytes: %v", err)
	}
}

// A scratch copy of a state, such as a backup that is verified, shares memory with the store that it was taken from.
func TestAudit_ACopyOfTheStateIsWrittenApart(t *testing.T) {
	s := storetest.New(t)
	record(t, s, event("common"))
	state, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other := storetest.New(t)
	if err := other.Restore(state); err != nil {
		t.Fatal(err)
	}
	record(t, other, event("there"))
	record(t, s, event("here"))
	if got := strings.Join(recorded(t, s), ", ") + "; " + strings.Join(recorded(t, other), ", "); got != "common, here; common, there" {
		t.Errorf("got %s", got)
	}
}

func TestAudit_AllManagersHaveTheSameLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		g.interval = 40
		managers := []*manager{g.first(), g.join("m2"), g.join("m3")}
		for round := range 4 {
			for i := range 60 {
				record(t, g.leader().store, event(fmt.Sprintf("%d/%d", round, i)))
			}
			g.same(managers...)
			victim := g.leader() // the next round has another leader, and one that was restarted
			victim.stop()
			g.mu.Lock()
			victim.store = nil
			g.mu.Unlock()
			record(t, g.leader().store, event("without one"))
			victim.start()
			g.same(managers...)
		}
		for _, m := range managers {
			if got := len(recorded(t, m.store)); got != 4*61 {
				t.Errorf("%d entries", got)
			}
		}
	})
}

// As long as some manager knows no audit log, changes go on without it.
func TestAudit_WaitsForTheOldestManager(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1 := g.first()
		g.protocol = 1
		m2 := g.join("m2")
		ctx := store.WithRider(t.Context(), new(rider))
		change := func(id string) error {
			return m1.store.Update(ctx, "", func(tx store.Tx) error { return tx.Create(service(id, id)) })
		}
		if err := change("a"); err != nil {
			t.Fatal(err)
		}
		if err := update(t, m1.store, func(tx store.Tx) error { return tx.Audit(event("alone")) }); !errors.Is(err, store.ErrOutdated) {
			t.Errorf("an event alone: %v", err)
		}
		if headOf(t, m1.store) != nil {
			t.Error("the log has begun")
		}
		g.same(m1, m2)
		if err := m1.store.UpdateMember(t.Context(), m2.store.Status().RaftID, "m2", "m2:1", store.Protocol); err != nil {
			t.Fatal(err)
		}
		if err := change("b"); err != nil {
			t.Fatal(err)
		}
		g.same(m1, m2)
		if got := strings.Join(recorded(t, m2.store), ", "); got != "create b" {
			t.Errorf("the log says %q", got)
		}
	})
}

// A swarm that goes on from an older state says so in its log, and in its head.
func TestAudit_ARecoveryIsInTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t)
		m1 := g.first()
		record(t, m1.store, event("before"))
		taken, err := m1.store.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		state := proto.CloneOf(taken)
		m1.stop()

		m2 := g.add("m2")
		if err := store.BootstrapFrom(m2.disk, state, &api.Member{RaftId: store.NewRaftID(), NodeId: "m2", Address: "m2:1"}); err != nil {
			t.Fatal(err)
		}
		m2.start()
		g.await(m2.leads)
		first := headOf(t, m2.store)
		if first.GetSequence() != 2 || first.GetRecoveredAt() == 0 {
			t.Fatalf("head %v", first)
		}
		record(t, m2.store, event("after"))
		m2.stop()
		if err := store.ForceNewCluster(m2.disk, "m2:1"); err != nil {
			t.Fatal(err)
		}
		m2.start()
		g.await(m2.leads)
		if head := headOf(t, m2.store); head.GetSequence() != 4 || head.GetRecoveredAt() <= first.GetRecoveredAt() {
			t.Errorf("head %v after %v", head, first)
		}
		want := "before, the swarm goes on from its state after entry 1, after, the swarm goes on from its state after entry 3"
		if got := strings.Join(recorded(t, m2.store), ", "); got != want {
			t.Errorf("the log says %q", got)
		}
	})
}

// BenchmarkAudit_Memory says what the audit log needs in memory: bytes per entry, and per byte of its encoding.
func BenchmarkAudit_Memory(b *testing.B) {
	const n = 100_000
	for range b.N {
		s := storetest.New(b)
		before := liveHeap()
		encoded := 0
		done, err := s.Batch(b.Context(), n, func(tx store.Tx, i int) error {
			e := chain.Encode(&api.AuditEvent{
				Method: "Control.UpdateService", CallerKind: "admin", Caller: "uid 0", Address: "@", Manager: object.SequenceID(7),
				ObjectKind: "service", ObjectId: object.SequenceID(uint64(i)), ObjectName: fmt.Sprintf("service-%d", i), Result: "ok",
				Summary: "update service", RequestId: object.SequenceID(uint64(i)),
			})
			encoded += len(e)
			return tx.Audit(e)
		})
		if err != nil || done != n {
			b.Fatal(done, err)
		}
		used := float64(liveHeap() - before)
		b.ReportMetric(used/n, "B/entry")
		b.ReportMetric(used/float64(encoded), "B/B")
		b.ReportMetric(float64(encoded)/n, "B/event")
		storetest.List[*api.AuditSegment](b, s)
	}
}

// liveHeap returns the bytes that are in use.
func liveHeap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}
