package chain

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
)

const cluster = "testcluster"

// written returns a log of n entries with all fields set.
func written(n int) []*api.AuditEntry {
	hash := Genesis(cluster)
	var entries []*api.AuditEntry
	for i := range n {
		event := &api.AuditEvent{Count: uint64(i + 2), FirstAt: uint64(1000 + i)}
		fields := event.ProtoReflect().Descriptor().Fields()
		for f := range fields.Len() {
			if field := fields.Get(f); field.Kind() == protoreflect.StringKind {
				event.ProtoReflect().Set(field, protoreflect.ValueOfString(fmt.Sprintf("%s of %d", field.Name(), i)))
			}
		}
		at := time.Unix(int64(1_700_000_000+i), int64(i))
		hash = Next(hash, uint64(i+1), at.UnixNano(), Encode(event))
		entries = append(entries, &api.AuditEntry{Sequence: uint64(i + 1), Time: timestamppb.New(at), Event: event, Hash: hash})
	}
	return entries
}

func verify(entries []*api.AuditEntry, head *api.AuditHead) error {
	v, err := NewVerifier(cluster, &api.AuditHead{Hash: Genesis(cluster)})
	if err != nil {
		return err
	}
	if err := v.Expect(head); err != nil {
		return err
	}
	for _, e := range entries {
		if err := v.Add(e); err != nil {
			return err
		}
	}
	_, err = v.Finish()
	return err
}

func headOf(entries []*api.AuditEntry) *api.AuditHead {
	last := entries[len(entries)-1]
	return &api.AuditHead{Sequence: last.GetSequence(), Hash: last.GetHash()}
}

func clone(entries []*api.AuditEntry) []*api.AuditEntry {
	var out []*api.AuditEntry
	for _, e := range entries {
		out = append(out, proto.CloneOf(e))
	}
	return out
}

// wantBroken fails unless err names the entry where the chain breaks.
func wantBroken(t *testing.T, what string, err error, sequence uint64) {
	t.Helper()
	if broken := (*BrokenError)(nil); !errors.As(err, &broken) || broken.Sequence != sequence {
		t.Errorf("%s: %v, want a break at %d", what, err, sequence)
	}
}

func TestVerifier_NamesTheEntryOfWhichAnythingChanged(t *testing.T) {
	entries := written(6)
	if err := verify(entries, headOf(entries)); err != nil {
		t.Fatal(err)
	}
	for i := range entries {
		fields := entries[i].GetEvent().ProtoReflect().Descriptor().Fields()
		for f := range fields.Len() {
			forged := clone(entries)
			event := forged[i].GetEvent().ProtoReflect()
			if field := fields.Get(f); field.Kind() == protoreflect.StringKind {
				event.Set(field, protoreflect.ValueOfString("forged"))
			} else {
				event.Set(field, protoreflect.ValueOfUint64(77))
			}
			wantBroken(t, string(fields.Get(f).Name()), verify(forged, headOf(entries)), uint64(i+1))
		}
		forged := clone(entries)
		forged[i].Time.Nanos++
		wantBroken(t, "time", verify(forged, headOf(entries)), uint64(i+1))
		forged = clone(entries)
		forged[i].Hash[3] ^= 1
		wantBroken(t, "hash", verify(forged, headOf(entries)), uint64(i+1))
	}
}

func TestVerifier_FindsWhatIsMissingMovedAndAdded(t *testing.T) {
	entries := written(6)
	for i := range entries {
		at := uint64(i + 1)
		wantBroken(t, "dropped", verify(slices.Delete(clone(entries), i, i+1), headOf(entries)), at)
		wantBroken(t, "twice", verify(slices.Insert(clone(entries), i, proto.CloneOf(entries[i])), headOf(entries)), at)
		if i > 0 {
			swapped := clone(entries)
			swapped[i-1], swapped[i] = swapped[i], swapped[i-1]
			wantBroken(t, "swapped", verify(swapped, headOf(entries)), at-1)
			wantBroken(t, "cut", verify(clone(entries)[:i], headOf(entries)), at)
		}
		inserted := proto.CloneOf(entries[i])
		inserted.Event.Summary = "never happened"
		wantBroken(t, "inserted", verify(slices.Insert(clone(entries), i, inserted), headOf(entries)), at)
	}
}

// Who can write everything anew still does not get to a head that somebody remembers.
func TestVerifier_ARewrittenLogDoesNotReachAKnownHead(t *testing.T) {
	entries, hash := written(6), Genesis(cluster)
	forged := clone(entries)
	for i, e := range forged {
		if i == 2 {
			e.Event.Caller = "somebody else"
		}
		hash = Next(hash, e.GetSequence(), e.GetTime().AsTime().UnixNano(), Encode(e.GetEvent()))
		e.Hash = hash
	}
	wantBroken(t, "rewritten", verify(forged, headOf(entries)), 6)
	wantBroken(t, "rewritten", verify(forged, headOf(entries[:4])), 4)
	if err := verify(forged, headOf(entries[:2])); err != nil {
		t.Errorf("before the change: %v", err)
	}
}

func TestVerifier_BeginsAtAnAnchor(t *testing.T) {
	entries := written(6)
	v, err := NewVerifier(cluster, headOf(entries[:3]))
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Expect(headOf(entries[:2])); err == nil {
		t.Error("a head before the anchor is taken for checked")
	}
	if err := v.Expect(&api.AuditHead{Sequence: 3, Hash: Genesis(cluster)}); err == nil {
		t.Error("another hash than the anchor's is taken")
	}
	if err := errors.Join(v.Expect(headOf(entries[:3])), v.Expect(headOf(entries))); err != nil {
		t.Fatal(err)
	}
	wantBroken(t, "another hash for one entry", v.Expect(&api.AuditHead{Sequence: 6, Hash: Genesis(cluster)}), 6)
	for _, e := range entries[3:] {
		if err := v.Add(e); err != nil {
			t.Fatal(err)
		}
	}
	if head, err := v.Finish(); err != nil || !proto.Equal(head, headOf(entries)) {
		t.Errorf("head %v, %v", head, err)
	}
	if _, err := NewVerifier("other", &api.AuditHead{Hash: Genesis(cluster)}); err == nil {
		t.Error("the log of another cluster is taken")
	}
	if _, err := NewVerifier(cluster, &api.AuditHead{Sequence: 4, Hash: []byte("short")}); err == nil {
		t.Error("a short hash is taken")
	}
}

// The format is part of what is on disks and in exports: it never changes.
func TestFormat_IsFixed(t *testing.T) {
	event := &api.AuditEvent{Method: "Control.CreateSecret", Result: "ok", Count: 300}
	encoded := Encode(event)
	if want := "\x0a\x14Control.CreateSecret\x4a\x02ok\x60\xac\x02"; string(encoded) != want {
		t.Errorf("event %q, want %q", encoded, want)
	}
	if got := fmt.Sprintf("%x", Genesis("c")); got != "7c838c7ebc48713bdf21e68d85a2fbc5a6a0a9f6765d49c4d8484f99847b611e" {
		t.Errorf("genesis %s", got)
	}
	if got := fmt.Sprintf("%x", Next(Genesis("c"), 1, 2, encoded)); got != "d3eddcdec3f1efa12f126a1f3bc391c0f6fc33b444c7c1be62a5ce5d52a498d6" {
		t.Errorf("hash %s", got)
	}
	if got := fmt.Sprintf("%x", Append(nil, 258, []byte("ab"))); got != "0000000000000102026162" {
		t.Errorf("entry %s", got)
	}
}

func TestEncode_CutsTextsAndKeepsWhatIsNewer(t *testing.T) {
	newer := []byte("\xa2\x01\x01x") // field 20
	event := &api.AuditEvent{Summary: strings.Repeat("ä", MaxText), ObjectName: "a\xffb"}
	event.ProtoReflect().SetUnknown(newer)
	encoded := Encode(event)
	decoded, err := Decode(encoded)
	if err != nil {
		t.Fatal(err)
	}
	if s := decoded.GetSummary(); len(s) > MaxText || !utf8.ValidString(s) || !strings.HasSuffix(s, "ä…") || decoded.GetObjectName() != "ab" {
		t.Errorf("decoded %v", decoded)
	}
	if !bytes.HasSuffix(encoded, newer) || !bytes.Equal(Encode(decoded), encoded) {
		t.Errorf("what a newer version wrote is lost: %q", encoded)
	}
}

func TestLinks_ReadWhatAppendWrote(t *testing.T) {
	entries := written(20)
	s := &api.AuditSegment{First: 1, Previous: Genesis(cluster), Count: 20, Head: entries[19].GetHash()}
	for _, e := range entries {
		s.Entries = Append(s.Entries, e.GetTime().AsTime().UnixNano(), Encode(e.GetEvent()))
	}
	i := 0
	for link, err := range Links(s) {
		if err != nil {
			t.Fatal(err)
		}
		if got, err := link.Entry(); err != nil || !proto.Equal(got, entries[i]) {
			t.Fatalf("entry %d is %v, %v; want %v", i+1, got, err, entries[i])
		}
		i++
	}
	if i != 20 || CheckSegment(s) != nil || Head(s).GetSequence() != 20 || Anchor(s).GetSequence() != 0 {
		t.Errorf("%d entries, %v", i, CheckSegment(s))
	}
	for range 200 {
		damaged := proto.CloneOf(s)
		damaged.Entries[rand.IntN(len(damaged.Entries))] ^= 1 << rand.IntN(8)
		if CheckSegment(damaged) == nil {
			t.Fatal("a flipped bit of a segment goes unnoticed")
		}
	}
}

// Whatever is decoded is encoded in one way only (C1).
func FuzzDecode(f *testing.F) {
	f.Add(Encode(written(1)[0].GetEvent()))
	f.Add([]byte("\x0a\x01a\x0a\x01b"))
	f.Add([]byte("\x60\x80\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := Decode(b); err == nil && !bytes.Equal(Encode(e), b) {
			t.Errorf("%q is encoded as %q", b, Encode(e))
		}
		for link, err := range Links(&api.AuditSegment{First: 1, Previous: Genesis(cluster), Entries: b}) {
			if err == nil && len(link.Hash) != HashSize {
				t.Error("an entry without a hash")
			}
		}
	})
}
