package main

import (
	"errors"
	"io"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
	"github.com/skep-io/skep/store/wal"
)

// bug is a planted bug: something that a manager, its disk or its client does wrong, so that the checks must find it.
type bug string

const (
	sendEarly     bug = "send-early"
	loseHardState bug = "lose-hard-state"
	lostSync      bug = "lost-sync"
	noDirSync     bug = "no-dir-sync"
	ackEarly      bug = "ack-early"
	ackLocal      bug = "ack-local"
	staleRead     bug = "stale-read"
	leaseRead     bug = "lease-read"
	freshID       bug = "fresh-id"
	dropDedup     bug = "drop-dedup"
	shortSnapshot bug = "short-snapshot"
	watchDrops    bug = "watch-drops"
	watchReorders bug = "watch-reorders"
	noResync      bug = "no-resync"
	sameID        bug = "same-id"
	pruneEarly    bug = "prune-early"
	clearDisk     bug = "clear-disk"
	noSync        bug = "no-sync"
	ignoreErrors  bug = "ignore-errors"
	oldRing       bug = "old-ring"
)

// planted says of each bug what is wrong. Those that are quick are found within a simulated minute or so.
type planted struct {
	name  bug
	what  string
	quick bool
}

func bugs() []planted {
	return []planted{
		{sendEarly, "messages leave before what they acknowledge is durable", false},
		{loseHardState, "term and vote do not reach the disk", false},
		{lostSync, "a crash takes back what the disk said was durable", false},
		{noSync, "nothing is made durable, only names are", true},
		{noDirSync, "names are not made durable", true},
		{ignoreErrors, "errors of the disk are ignored", false},
		{ackEarly, "a write is acknowledged when it is proposed", true},
		{ackLocal, "a write is acknowledged when the leader alone has it", false},
		{staleRead, "a read does not ask the leader", false},
		{leaseRead, "a leader does not ask the others whether it still is one before a read", false},
		{freshID, "a client tries again under another request id", false},
		{dropDedup, "a snapshot lacks the memory of requests", true},
		{shortSnapshot, "a snapshot lacks an object", true},
		{watchDrops, "a resumed watcher misses the next batch", true},
		{watchReorders, "a watcher gets two batches in the wrong order", true},
		{noResync, "a watcher that is too far behind goes on as if nothing was missing", true},
		{sameID, "a manager that lost its disk comes back under its old raft id", false},
		{pruneEarly, "the old data key is forgotten before everything is sealed with the new one", false},
		{oldRing, "the key ring from before a change of the key comes back", false},
		{clearDisk, "the disk holds a message as it came from the network", true},
	}
}

// beforeWork damages what is about to become durable.
func (n *node) beforeWork(work *store.Work) {
	for _, a := range work.Appends {
		switch n.w.bug {
		case sendEarly:
			transport{n}.Send(a.Send)
			a.Send = nil
		case loseHardState:
			a.HardState = &raftpb.HardState{}
		}
	}
	if n.w.bug == lostSync && n.w.chance(0.05) {
		older, err := n.mem.Crash(nil)
		n.w.must(err)
		n.older = older
	}
}

// afterWork lies about what became durable.
func (n *node) afterWork(work *store.Work) {
	lead, _ := n.p.Store().Leadership()
	if n.w.bug != ackLocal || !lead.Self || len(work.Appends) == 0 {
		return
	}
	for _, c := range n.calls {
		if c.write {
			c.done(nil)
		}
	}
}

// tamper changes a message before it arrives.
func (w *world) tamper(n *node, m *raftpb.Message) {
	if w.bug == clearDisk && m.GetType() == raftpb.MsgSnap {
		w.must(vfs.WriteFile(n.mem, filepath.Join(dataDir, "received"), 0o600, m.GetSnapshot().GetData()))
	}
}

// rewriteDisk damages what is at rest.
func (n *node) rewriteDisk() {
	switch n.w.bug {
	case dropDedup:
		n.rewriteSnapshot(func(s *api.StoreSnapshot) { s.NamedRequests = nil })
	case shortSnapshot:
		n.rewriteSnapshot(func(s *api.StoreSnapshot) { s.Objects = s.Objects[:max(len(s.Objects)-1, 0)] })
	case pruneEarly:
		if ring, err := seal.OpenRing(n.mem, ringPath, cluster, n.keys.now); err == nil {
			n.w.must(ring.Prune())
		}
	case oldRing:
		if n.oldRing != nil {
			n.w.must(vfs.WriteFile(n.mem, ringPath, 0o600, n.oldRing))
		}
	}
}

func (n *node) rewriteSnapshot(change func(*api.StoreSnapshot)) {
	log, state, err := wal.Open(wal.Disk{FS: n.mem, Dir: dataDir, SegmentSize: segmentSize}, n.keys.now)
	if err != nil {
		return
	}
	defer log.Close()
	if state.Snapshot == nil {
		return
	}
	r, err := log.OpenSnapshot(state.Snapshot.GetIndex(), state.Snapshot.GetTerm())
	n.w.must(err)
	data, err := io.ReadAll(r)
	n.w.must(errors.Join(err, r.Close()))
	var content api.StoreSnapshot
	n.w.must(proto.Unmarshal(data, &content))
	change(&content)
	n.w.must(log.WriteSnapshot(r.Meta, func(to io.Writer) error {
		b, err := proto.Marshal(&content)
		if err == nil {
			_, err = to.Write(b)
		}
		return err
	}))
}

// damageWatch changes what a watcher gets.
func (n *node) damageWatch(b store.Batch) []store.Batch {
	switch {
	case n.w.bug == watchDrops && n.watch.damage == 1:
		n.watch.damage = 0
		return nil
	case n.w.bug == watchReorders && n.watch.held != nil:
		held := *n.watch.held
		n.watch.held = nil
		return []store.Batch{b, held}
	case n.w.bug == watchReorders && n.w.chance(0.001):
		n.watch.held = &b
		return nil
	}
	return []store.Batch{b}
}
