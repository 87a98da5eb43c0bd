package audit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/skep-io/skep/api"
)

// texts shows events: what, from where, how many.
func texts(events []*api.AuditEvent) string {
	var out []string
	for _, e := range events {
		out = append(out, fmt.Sprintf("%s from %s x%d", e.GetMethod(), e.GetAddress(), max(e.GetCount(), 1)))
	}
	return strings.Join(out, ", ")
}

func TestQueue_SumsUpWhatComesAgain(t *testing.T) {
	q, now := newQueue("m1"), time.Unix(1000, 0)
	call := func(method, address string) {
		q.add(now, &api.AuditEvent{Method: method, Address: address, Caller: "n1", RequestId: "r"})
	}
	if _, some := q.next(now); some {
		t.Error("an empty queue has something")
	}
	call("A", "10.0.0.1:1")
	call("A", "10.0.0.1:2") // the port is another one with each connection
	call("B", "10.0.0.1:1")
	call("A", "10.0.0.2:1")
	if rest, some := q.next(now); !some || rest != 0 {
		t.Errorf("next: %v, %v", rest, some)
	}
	if got := texts(q.take(now)); got != "A from 10.0.0.1:1 x1, B from 10.0.0.1:1 x1, A from 10.0.0.2:1 x1" {
		t.Errorf("at once: %s", got)
	}
	now = now.Add(time.Second)
	call("A", "10.0.0.1:3")
	if rest, some := q.next(now); !some || rest != window-time.Second || len(q.take(now)) > 0 {
		t.Errorf("next: %v, %v", rest, some)
	}
	now = now.Add(window)
	got := q.take(now)
	if texts(got) != "A from 10.0.0.1:2 x2" || got[0].GetFirstAt() != uint64(time.Unix(1000, 0).UnixNano()) || got[0].GetRequestId() != "" {
		t.Errorf("after the window: %v", got)
	}
	call("A", "10.0.0.1:4")
	if got := texts(q.take(now)); got != "A from 10.0.0.1:4 x1" {
		t.Errorf("in the next window: %s", got)
	}
}

// Who floods a manager gets few entries; what has none is counted (U1).
func TestQueue_AFloodIsBoundedAndCounted(t *testing.T) {
	q, now := newQueue("m1"), time.Unix(1000, 0)
	written, counted := 0, uint64(0)
	take := func() {
		for _, e := range q.take(now) {
			written++
			counted += max(e.GetCount(), 1)
		}
	}
	const calls, minutes = 5000, 10
	for range minutes {
		for i := range calls {
			q.add(now, &api.AuditEvent{Method: "A", CallerKind: "anyone", Address: fmt.Sprintf("10.0.%d.%d:1", i/250, i%250)})
		}
		take()
		now = now.Add(window)
	}
	take()
	if most := minutes * (2*maxStrangers + 1); written > most || counted != calls*minutes {
		t.Errorf("%d entries, at most %d are right; they stand for %d of %d calls", written, most, counted, calls*minutes)
	}
	q.add(now, &api.AuditEvent{Method: "A", CallerKind: "worker", Caller: "n1"})
	if got := texts(q.take(now)); got != "A from  x1" {
		t.Errorf("a node has no entry beside the strangers: %s", got)
	}
}

func TestQueue_KeepsALimitedNumberWhileNobodyLeads(t *testing.T) {
	q, now := newQueue("m1"), time.Unix(1000, 0)
	for i := range 3 * maxWaiting {
		q.deliver(now, &api.AuditEvent{Method: methodDeliver, ObjectId: fmt.Sprint(i)})
	}
	first := q.take(now)
	q.deliver(now, &api.AuditEvent{Method: methodDeliver, ObjectId: "last"})
	q.putBack(now, first)
	now = now.Add(window)
	got := q.take(now)
	if last := got[len(got)-1]; len(got) != maxWaiting+1 || last.GetResult() != resultLost || last.GetCount() != 2*maxWaiting+1 {
		t.Errorf("%d are kept, the last is %v", len(got), last)
	}
}
