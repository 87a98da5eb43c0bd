package main

import (
	"context"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
)

// network is what is wrong between the managers.
type network struct {
	cut   [managers][managers]bool // from, to
	badTo time.Duration            // until then it loses and delays a lot
}

func (net *network) heal() { *net = network{} }

// partition splits the group, sometimes in one direction only.
func (w *world) partition() {
	oneWay := w.chance(0.3)
	var side [managers]bool
	for i := range side {
		side[i] = w.chance(0.5)
	}
	for a := range managers {
		for b := range managers {
			if side[a] != side[b] && (!oneWay || side[a]) {
				w.net.cut[a][b] = true
			}
		}
	}
}

// isolate cuts a manager off from all others, or lets it back.
func (w *world) isolate(a int, cut bool) {
	for b := range managers {
		if a != b {
			w.net.cut[a][b], w.net.cut[b][a] = cut, cut
		}
	}
}

// swizzle cuts off some managers, one after the other, and lets them back in another order.
func (w *world) swizzle(hold time.Duration) {
	some := w.rng.Perm(managers)[:1+w.rng.IntN(managers)]
	for _, a := range some {
		w.after(w.between(0, hold/2), func() {
			if !w.calm {
				w.isolate(a, true)
			}
		})
		w.after(w.between(hold/2, hold), func() { w.isolate(a, false) })
	}
}

// transport is the network of a node.
type transport struct{ n *node }

// Run is not called: the simulation plays the store.
func (transport) Run(context.Context, store.Sink) error { return nil }

// SetMembers needs to do nothing: every raft id is known.
func (transport) SetMembers([]*api.Member) {}

// Send puts messages on their way. They are copied, as on a real network, because the library goes on using them.
func (t transport) Send(messages []*raftpb.Message) {
	n, w := t.n, t.n.w
	for _, m := range messages {
		whole, readable := n.complete(m)
		encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(whole)
		w.must(err)
		w.note(m.GetFrom(), m.GetTo())
		w.trace.Write(encoded)
		to, from := m.GetTo(), m.GetFrom()
		copies := w.copies()
		if !readable {
			copies = 0
		}
		for range copies {
			w.after(w.latency(), func() { w.deliver(n.number, from, to, encoded) })
		}
		if m.GetType() == raftpb.MsgSnap {
			life, ok := n.life, copies > 0
			w.after(10*time.Millisecond, func() {
				n.when(life, func() { n.do(n.p.SnapshotSent(to, ok)) })
			})
		}
	}
}

// complete returns a message with the data of its snapshot, and whether the disk gave them.
func (n *node) complete(m *raftpb.Message) (whole *raftpb.Message, readable bool) {
	if m.GetType() != raftpb.MsgSnap {
		return m, true
	}
	data, err := n.p.SnapshotData(m.GetSnapshot().GetMetadata())
	m = proto.CloneOf(m)
	m.Snapshot.Data = data
	return m, err == nil
}

// copies is how many copies of a message arrive.
func (w *world) copies() int {
	lose := 0.01
	if w.now < w.net.badTo {
		lose = 0.2
	}
	switch p := w.rng.Float64(); {
	case w.calm:
		return 1
	case p < lose:
		return 0
	case p < 2*lose:
		return 2
	}
	return 1
}

func (w *world) latency() time.Duration {
	late := 0.01
	if w.now < w.net.badTo {
		late = 0.3
	}
	if !w.calm && w.chance(late) {
		return w.between(5*time.Millisecond, 800*time.Millisecond)
	}
	return w.between(time.Millisecond/5, 5*time.Millisecond)
}

func (w *world) deliver(number int, from, id uint64, encoded []byte) {
	to := w.byRaft[id]
	if to == nil || to.p == nil || w.net.cut[number][to.number] {
		return
	}
	to.when(to.life, func() {
		m := &raftpb.Message{}
		w.must(proto.Unmarshal(encoded, m))
		w.tamper(to, m)
		to.do(to.p.Receive(from, m))
	})
}
