package events

import (
	"testing"
	"time"
)

func TestRing_IsBoundedAndKnowsWhatItLost(t *testing.T) {
	var r ring
	begun := time.Unix(1000, 0)
	r.begin(5, begun)
	first := r.end()
	const n = maxEvents + 1000
	for i := range uint64(n) {
		r.add(entry{at: cursor{6 + i, 1}, time: begun.Add(time.Duration(i) * time.Second)})
	}
	if len(r.entries) != maxEvents {
		t.Errorf("%d events are kept", len(r.entries))
	}
	if _, ok := r.read(first, 1); ok {
		t.Error("a reader does not notice what is lost")
	}
	lost := cursor{6 + n - maxEvents - 1, 1}
	if _, ok := r.seek(cursor{lost.index, 0}); ok {
		t.Error("a place before the last event that was dropped is there")
	}
	number, ok := r.seek(lost)
	if events, there := r.read(number, 1); !ok || !there || len(events) != 1 || events[0].at.index != lost.index+1 {
		t.Errorf("after the last event that was dropped: %v, %v, %v", events, ok, there)
	}
	if want := begun.Add(time.Duration(n-maxEvents-1) * time.Second); !r.since.Equal(want) {
		t.Errorf("complete since %v, want %v", r.since, want)
	}
	for range maxEvents {
		r.drop()
	}
	if r.bytes != 0 || r.last() != r.base {
		t.Errorf("empty: %d bytes, %v", r.bytes, r.last())
	}
}
