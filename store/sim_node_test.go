package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/raftcore"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
	"github.com/skep-io/skep/store/wal"
)

// simNode is a manager: what survives a crash, and, while it is up, a store whose loop the simulation plays.
type simNode struct {
	w      *world
	number int
	name   string
	raftID uint64
	mem    *vfs.Mem // the disk
	older  *vfs.Mem // the disk a while ago, for the bug lostsync

	life     int // counts starts, so that events of a dead process do nothing
	s        *Store
	c        *cluster // nil while down
	busy     bool     // the disk
	waiting  []*proposal
	open     []*simCall
	pausedTo int64
	slowTo   int64
	drift    float64
	hashed   Index
	watcher  *Watcher      // nil until the store has what it saw in a former life
	dropNext bool          // for the bug watchdrops
	copy     map[Ref]Index // what the watcher says is there
	position Index         // of the copy
	replaced bool          // its disk was lost, and it has not joined again yet
}

// simCall waits for an outcome of the node.
type simCall struct {
	proposal *proposal
	barrier  chan error
	done     func(outcome)
}

func newSimNode(w *world, number int) *simNode {
	n := &simNode{w: w, number: number, name: fmt.Sprint("n", number+1), raftID: uint64(number + 1), drift: 1, mem: vfs.NewMem()}
	w.byRaft[n.raftID] = n
	return n
}

func (n *simNode) member() *api.Member {
	return &api.Member{RaftId: n.raftID, NodeId: n.name, Address: n.name + ":1"}
}

func (n *simNode) disk() Disk {
	return Disk{FS: n.mem, Dir: "/raft", KEK: n.w.kek, Source: seal.SourceKeyFile, SegmentSize: 64 << 10}
}

// create makes the disk of a founding member.
func (n *simNode) create() {
	state := &api.StoreSnapshot{ClusterId: "c1", Index: firstIndex}
	conf := &raftpb.ConfState{}
	for _, other := range n.w.nodes {
		state.Members = append(state.Members, other.member())
		conf.Voters = append(conf.Voters, other.raftID)
	}
	data, err := proto.Marshal(state)
	n.w.must(err)
	start := &raftpb.Snapshot{Data: data, Metadata: &raftpb.SnapshotMetadata{
		Index: proto.Uint64(firstIndex), Term: proto.Uint64(firstTerm), ConfState: conf,
	}}
	identity := &api.JoinResponse{RaftId: n.raftID, Members: state.Members}
	n.w.must(wal.Create(n.disk().wal(), "c1", n.w.kek, seal.SourceKeyFile, identity, start))
}

// start brings the manager up from its disk, if it is down.
func (n *simNode) start() {
	if n.c != nil || n.replaced {
		return
	}
	s, err := Open(Config{Disk: n.disk(), Transport: simTransport{n}, SnapshotInterval: 150, Logger: slog.New(slog.DiscardHandler)})
	n.w.must(err)
	n.life++
	n.s, n.c, n.busy, n.hashed = s, s.cluster, false, 0
	if n.w.bug == "dropdedup" {
		n.c.machine.requests.load(nil, nil)
	}
	n.watcher = nil
	n.do(n.c.start)
	n.tick(n.life)
}

// crash takes the process and what was not durable.
func (n *simNode) crash() {
	if n.c == nil {
		return
	}
	n.w.must(n.c.wal.Close())
	n.s, n.c, n.waiting, n.open = nil, nil, nil, nil
	if n.w.bug == "lostsync" && n.older != nil {
		n.mem, n.older = n.older, nil
		return
	}
	after, err := n.mem.Crash(n.w.rng)
	n.w.must(err)
	n.mem.Close()
	n.mem = after
}

// do runs something of the loop, and what follows from it.
func (n *simNode) do(fn func() error) {
	err := fn()
	if errors.Is(err, ErrRemoved) {
		n.crash()
		return
	}
	if err != nil {
		n.w.violated("%s stops: %v", n.name, err)
	}
	n.settle()
}

// when runs fn once the node is not paused, if it is still the same process.
func (n *simNode) when(life int, fn func()) {
	if n.c == nil || n.life != life {
		return
	}
	if n.w.now < n.pausedTo {
		n.w.after(n.pausedTo-n.w.now, func() { n.when(life, fn) })
		return
	}
	fn()
}

func (n *simNode) tick(life int) {
	if n.c == nil || n.life != life {
		return
	}
	if n.w.now >= n.pausedTo {
		n.do(n.c.tick)
	}
	n.w.after(int64(float64(100*ms)*n.drift), func() { n.tick(life) })
}

// settle plays the parts of the loop that are not steps: the disk, snapshots, proposals and answers.
func (n *simNode) settle() {
	if n.c == nil {
		return
	}
	n.writeQueue()
	select {
	case taken := <-n.c.captures:
		n.writeCapture(taken)
	default:
	}
	if n.c.writing == 0 && len(n.waiting) > 0 {
		for _, p := range n.waiting {
			n.c.proposals <- p
		}
		n.waiting = nil
		n.do(func() error { return n.c.group(<-n.c.proposals) })
		return
	}
	n.observe()
	n.answer()
}

func (n *simNode) delay() int64 {
	if n.w.now < n.slowTo {
		return n.w.between(100*ms, 2*sec)
	}
	return n.w.between(ms/5, 3*ms)
}

// writeQueue gives the disk its next jobs.
func (n *simNode) writeQueue() {
	if n.busy || len(n.c.queue) == 0 {
		return
	}
	jobs, life := n.c.queue, n.life
	n.c.queue, n.busy = nil, true
	if n.w.bug == "sendearly" {
		for _, j := range jobs {
			if j.append != nil {
				n.c.send(j.append.Send)
				j.append.Send = nil
			}
		}
	}
	n.w.after(n.delay(), func() {
		n.when(life, func() {
			if n.w.bug == "losehardstate" {
				for _, j := range jobs {
					if j.append != nil {
						j.append.HardState = &raftpb.HardState{}
					}
				}
			}
			if n.w.bug == "lostsync" && n.w.rng.IntN(20) == 0 {
				older, err := n.mem.Crash(nil)
				n.w.must(err)
				n.older = older
			}
			n.w.must(n.c.writeJobs(jobs))
			n.busy = false
			n.do(func() error { return n.c.finish(jobs) })
		})
	})
}

func (n *simNode) writeCapture(taken capture) {
	write := taken.state.write
	if n.w.bug == "shortsnapshot" {
		write = func(to io.Writer) error {
			short, err := taken.state.message()
			if err != nil {
				return err
			}
			short.Objects = short.Objects[:max(len(short.Objects)-1, 0)]
			data, err := proto.Marshal(short)
			if err != nil {
				return err
			}
			_, err = to.Write(data)
			return err
		}
	}
	life := n.life
	n.w.after(5*n.delay(), func() {
		n.when(life, func() {
			n.w.must(n.c.wal.WriteSnapshot(taken.meta, write))
			n.c.queue = append(n.c.queue, job{compact: taken.meta})
			n.c.capturing = false
			n.settle()
		})
	})
}

// answer tells the clients what is known now.
func (n *simNode) answer() {
	rest := n.open[:0]
	var ready []func()
	for _, call := range n.open {
		select {
		case o := <-call.outcome():
			ready = append(ready, func() { call.done(o) })
		default:
			rest = append(rest, call)
		}
	}
	n.open = rest
	for _, do := range ready {
		do()
	}
}

func (c *simCall) outcome() chan outcome {
	if c.proposal != nil {
		return c.proposal.done
	}
	out := make(chan outcome, 1)
	select {
	case err := <-c.barrier:
		out <- outcome{err: err}
	default:
	}
	return out
}

// observe checks what the node has applied (I3, I4).
func (n *simNode) observe() {
	m := n.c.machine
	if m.index/100 != n.hashed/100 || m.index < n.hashed {
		n.hashed = m.index
		_, hash, err := m.freeze().hash()
		n.w.must(err)
		if before, ok := n.w.hashes[m.index]; ok && before != hash {
			n.w.violated("I3: %s differs from another manager at %d", n.name, m.index)
		}
		n.w.hashes[m.index] = hash
	}
	n.resume()
	for n.watcher != nil {
		batch, ok, err := n.watcher.TryNext()
		if errors.Is(err, ErrResync) {
			n.resync()
			continue
		}
		n.w.must(err)
		if !ok {
			return
		}
		if n.dropNext {
			n.dropNext = false
			continue
		}
		n.note(batch)
	}
}

// resume continues the watch where the last life left it, once the store has caught up with it.
func (n *simNode) resume() {
	if n.watcher != nil || n.c.machine.index < n.position {
		return
	}
	if n.position == 0 {
		n.resync()
		return
	}
	watcher, err := n.s.Watch(context.Background(), n.position)
	if errors.Is(err, ErrResync) {
		n.resync()
		return
	}
	n.w.must(err)
	n.watcher = watcher
	n.dropNext = n.w.bug == "watchdrops"
}

// resync starts a watch from a snapshot.
func (n *simNode) resync() {
	watcher, err := n.s.Watch(context.Background(), 0)
	n.w.must(err)
	n.watcher, n.copy, n.position = watcher, map[Ref]Index{}, watcher.Position()
	n.each(watcher.Snapshot(), func(ref Ref, version Index) { n.copy[ref] = version })
}

func (n *simNode) each(tx ReadTx, fn func(Ref, Index)) {
	for _, kind := range object.Kinds() {
		iterator, err := tx.iterate(kind, ByIDPrefix(""))
		n.w.must(err)
		for raw := iterator.Next(); raw != nil; raw = iterator.Next() {
			fn(refOf(raw.(Object)), raw.(Object).GetMeta().GetVersion())
		}
	}
}

// note applies a batch to the copy: each change must fit what the copy has.
func (n *simNode) note(batch Batch) {
	if batch.Index <= n.position {
		n.w.violated("I4: %s was told of %d after %d", n.name, batch.Index, n.position)
	}
	n.position = batch.Index
	for _, change := range batch.Changes {
		ref := refOf(change.Object)
		before := uint64(0)
		if change.Old != nil {
			before = change.Old.GetMeta().GetVersion()
		}
		if n.copy[ref] != before {
			n.w.violated("I4: %s missed a change of %v before %d", n.name, ref, batch.Index)
		}
		n.copy[ref] = change.Object.GetMeta().GetVersion()
		if change.Action == ActionDelete {
			delete(n.copy, ref)
		}
	}
}

// checkCopy compares the copy with the state.
func (n *simNode) checkCopy() {
	n.observe()
	count := 0
	n.each(n.c.machine.view().read(), func(ref Ref, version Index) {
		count++
		if n.copy[ref] != version {
			n.w.violated("I4: %s: the watcher has %v at %d, the store at %d", n.name, ref, n.copy[ref], version)
		}
	})
	if count != len(n.copy) {
		n.w.violated("I4: %s: the watcher has %d objects, the store %d", n.name, len(n.copy), count)
	}
}

// replace destroys the disk; the manager joins again under a new raft id, as AddMember does it.
func (n *simNode) replace() {
	for _, other := range n.w.nodes {
		if other.replaced {
			return // one at a time: a majority keeps its disks
		}
	}
	n.crash()
	n.replaced = true
	n.position = 0
	old := n.raftID
	id := NewRaftID()
	var rejoin func()
	rejoin = func() {
		if n.rejoined(old, id) {
			return
		}
		n.w.after(500*ms, rejoin)
	}
	n.w.after(n.w.between(100*ms, 2*sec), rejoin)
}

// rejoined takes the next step of joining, on whoever leads.
func (n *simNode) rejoined(old, id uint64) bool {
	var leader *simNode
	for _, other := range n.w.nodes {
		if other.c != nil && other.w.now >= other.pausedTo {
			if leadership, _ := other.c.leadership(); leadership.Self && (leader == nil || leadership.Term > leader.c.lead.Term) {
				leader = other
			}
		}
	}
	if leader == nil {
		return false
	}
	member := &api.Member{RaftId: id, NodeId: n.name, Address: n.name + ":1", Learner: true}
	known := &leader.c.machine.members
	switch {
	case !known.isRemoved(old):
		if leader.c.quorumWithout(old) == nil {
			leader.do(func() error {
				return leader.c.proposeChange(raftpb.ConfChangeRemoveNode, &api.Member{RaftId: old, NodeId: n.name})
			})
		}
	case known.get(id) == nil:
		leader.do(func() error { return leader.c.proposeChange(raftpb.ConfChangeAddLearnerNode, member) })
	default:
		n.mem.Close()
		n.mem, n.raftID, n.replaced, n.older = vfs.NewMem(), id, false, nil
		n.w.byRaft[id] = n
		delete(n.w.byRaft, old)
		joined := &api.JoinResponse{RaftId: id, Members: known.list()}
		n.w.must(Prepare(n.disk(), "c1", joined))
		n.start()
		return true
	}
	return false
}

// simTransport is the network of a node.
type simTransport struct{ n *simNode }

func (simTransport) Run(context.Context, Sink) error { return nil }
func (simTransport) SetMembers([]*api.Member)        {}

func (s simTransport) Send(messages []*raftpb.Message) {
	n, w := s.n, s.n.w
	for _, m := range messages {
		to := w.byRaft[m.GetTo()]
		encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		w.must(err)
		fmt.Fprintf(w.trace, "%d %d>%d %d %d %d ", w.now, m.GetFrom(), m.GetTo(), m.GetType(), m.GetTerm(), m.GetIndex())
		copies := 1
		if !w.calm {
			switch p := w.rng.Float64(); {
			case p < 0.01:
				copies = 0
			case p < 0.02:
				copies = 2
			}
		}
		for range copies {
			delay := w.between(ms/5, 5*ms)
			if w.rng.Float64() < 0.01 {
				delay = w.between(5*ms, 800*ms)
			}
			from := n.number
			w.after(delay, func() { w.deliver(from, to, m.GetFrom(), encoded) })
		}
		if m.GetType() == raftpb.MsgSnap {
			life, id, ok := n.life, m.GetTo(), copies > 0
			w.after(10*ms, func() {
				n.when(life, func() { n.do(func() error { return n.c.step(raftcore.SnapshotSent{ID: id, OK: ok}) }) })
			})
		}
	}
}

func (w *world) deliver(from int, to *simNode, raftID uint64, encoded []byte) {
	if to == nil || to.c == nil || w.cut[from][to.number] {
		return
	}
	to.when(to.life, func() {
		m := &raftpb.Message{}
		w.must(proto.Unmarshal(encoded, m))
		if to.c.machine.members.isRemoved(raftID) {
			return
		}
		to.do(func() error { return to.c.step(raftcore.Receive{From: raftID, Message: m}) })
	})
}

const never = math.MaxInt64
