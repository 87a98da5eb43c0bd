package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/store/raftcore"
	"github.com/skep-io/skep/store/wal"
)

// cluster is the log of a replicated store: the shell around raftcore. Run's goroutines are:
//
//	callers --proposals, barriers, calls--> loop <--received, inputs-- transport
//	                                        |  ^ \--captures--> capture (writes snapshots)
//	                                   jobs v  | written
//	                                       write (owns the log on disk) --> prepare (its next segment)
//
// The loop never waits for the disk or the network, and between two entries that it applies it takes what came meanwhile: however much is
// committed at once, its peers hear of it in time. While the disk is busy, or enough groups are on their way, it takes no
// proposals, so that those that wait meanwhile share the next entry.
type cluster struct {
	// snapshotInterval is the number of entries between snapshots.
	snapshotInterval atomic.Uint64

	// Constant after newCluster.
	transport Transport // or nil
	logger    *slog.Logger
	id        uint64
	nodeID    string
	wal       *wal.WAL
	storage   *storage
	machine   *machine
	hub       *hub
	received  chan raftcore.Receive
	proposals chan *proposal
	barriers  chan chan error
	calls     chan func() error
	inputs    chan raftcore.Input
	removal   chan struct{}
	jobs      chan []job
	written   chan []job
	captures  chan capture
	prepares  chan struct{} // holds one
	stopped   chan struct{} // closed when run ends

	// Owned by the goroutine that writes the log.
	saved *raftpb.HardState // the last one, on disk or, when only its commit index is newer, with the next entries

	// Owned by the loop.
	core          *raftcore.Core
	applying      []*raftcore.Apply // what is committed and not all in the state machine
	taken         int               // entries of the first of them that are
	queue         []job             // for the disk
	writing       int               // appends in queue or on their way to the disk
	wedge         wedge
	gate          gate
	pending       map[string][]*proposal
	groups        int // of proposals that were made by this leader and are not applied
	reads         reads
	confState     *raftpb.ConfState
	snapshotIndex Index // of the last snapshot that was begun
	logBytes      int   // of the entries since
	capturing     bool
	rotating      bool       // the data key is being changed
	rotations     []rotation // of the data key, the first of them perhaps under way
	appliedTerm   uint64     // of the last applied entry
	readyTerm     uint64     // the term whose first entry was applied while leading it

	mu        sync.Mutex
	lead      Leadership     // guarded by mu
	changed   chan struct{}  // guarded by mu; closed and replaced when leadership, membership or settled change
	members   []MemberStatus // guarded by mu; as of the last tick or change
	settled   bool           // guarded by mu; likewise
	committed Index          // guarded by mu; likewise
}

func (c *cluster) barrier(ctx context.Context) error {
	done := make(chan error, 1)
	select {
	case c.barriers <- done:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.stopped:
		return ErrStopped
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.stopped:
		return ErrStopped
	}
}

// call runs fn in the loop.
func (c *cluster) call(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	select {
	case c.calls <- func() error { err := fn(); done <- err; return fatal(err) }:
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-c.stopped:
		return ErrStopped
	}
	return <-done
}

// fatal returns err when the store must stop because of it.
func fatal(err error) error {
	if errors.Is(err, raftcore.ErrBroken) {
		return err
	}
	return nil
}

func (c *cluster) leadership() (Leadership, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lead, c.changed
}

func (c *cluster) between(ctx context.Context, fn func(*machine) error) error {
	return c.call(ctx, func() error { return fn(c.machine) })
}

// always is ready to be received from.
var always = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// loop feeds the core.
func (c *cluster) loop(ctx context.Context) error {
	ticker := time.NewTicker(tickInterval)
	defer ticker.Stop()
	if err := c.start(); err != nil {
		return err
	}
	for {
		var proposals chan *proposal
		if c.takesProposals() {
			proposals = c.proposals
		}
		var jobs chan []job
		if len(c.queue) > 0 {
			jobs = c.jobs
		}
		var apply chan struct{}
		if len(c.applying) > 0 {
			apply = always
		}
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.removal:
			return ErrRemoved
		case <-ticker.C:
			err = c.tick()
		case in := <-c.received:
			err = c.step(in)
		case in := <-c.inputs:
			err = c.step(in)
		case p := <-proposals:
			err = c.group(p)
		case done := <-c.barriers:
			err = c.read(done)
		case fn := <-c.calls:
			err = fn()
		case jobs <- c.queue:
			c.queue = nil
		case done := <-c.written:
			err = c.finish(done)
		case <-apply:
		}
		if err == nil {
			c.offer()
			err = c.applyNext()
		}
		if err != nil {
			return err
		}
	}
}

// offer gives the disk what there is for it, if it waits: before an entry is applied, which takes longer than to hand it over. A follower
// even lets it have the processor first: somebody waits for what is on its disk, and nobody for what it applies.
func (c *cluster) offer() {
	if len(c.queue) == 0 {
		return
	}
	select {
	case c.jobs <- c.queue:
		c.queue = nil
	default:
		return
	}
	if len(c.applying) > 0 && !c.core.Leader().Self {
		runtime.Gosched()
	}
}

// start makes a group of one elect itself at once.
func (c *cluster) start() error {
	if voters := c.confState.GetVoters(); len(voters) == 1 && voters[0] == c.id {
		return c.step(raftcore.Campaign{})
	}
	return nil
}

// step feeds one input to the core and starts what it leads to. It returns an error only when the store must stop; that an
// input was refused or dropped is part of life.
func (c *cluster) step(in raftcore.Input) error {
	if r, ok := in.(raftcore.Receive); ok && r.Message.GetType() == raftpb.MsgSnap {
		// With the snapshot the core takes over its members at once: no earlier change of them may follow.
		if err := c.applyAll(); err != nil {
			return err
		}
	}
	heard := c.core.Heard()
	effects, err := c.core.Step(in)
	if c.core.Heard() > heard {
		c.report()
	}
	if errors.Is(err, raftcore.ErrRefused) {
		c.logger.Debug("message refused", "error", err)
		err = nil
	}
	if errors.Is(err, raftcore.ErrDropped) {
		err = nil
	}
	if err != nil {
		return err
	}
	return c.act(effects)
}

func (c *cluster) act(effects raftcore.Effects) error {
	c.send(effects.Send)
	for _, a := range effects.Appends {
		j := job{append: a, behind: len(effects.Send) > 0}
		if a.Snapshot != nil {
			var err error
			from := bytes.NewReader(a.Snapshot.GetData())
			if j.state, err = readState(from, c.machine.clusterID, a.Snapshot.GetMetadata().GetIndex()); err != nil {
				return fmt.Errorf("the leader sent a bad snapshot: %w", err)
			}
		}
		c.queue = append(c.queue, j)
		c.writing++
	}
	for _, r := range effects.Reads {
		if err := c.readReady(r); err != nil {
			return err
		}
	}
	c.applying = append(c.applying, effects.Applies...)
	c.publish()
	return nil
}

func (c *cluster) send(messages []*raftpb.Message) {
	if c.transport != nil && len(messages) > 0 {
		c.transport.Send(messages)
	}
}

// finish goes on with what waited for the disk.
func (c *cluster) finish(jobs []job) error {
	c.diskFinished()
	for _, j := range jobs {
		if j.then != nil {
			if err := j.then(); err != nil {
				return err
			}
		}
		if j.append == nil {
			continue
		}
		c.writing--
		if j.state != nil {
			if err := c.restore(j); err != nil {
				return err
			}
		}
		c.send(j.append.Send)
		if err := c.step(raftcore.Appended{Append: j.append}); err != nil {
			return err
		}
	}
	return nil
}

// restore makes a snapshot from the leader the state.
func (c *cluster) restore(j job) error {
	if err := c.applyAll(); err != nil { // what was committed before it
		return err
	}
	if err := c.machine.restore(j.state); err != nil {
		return fmt.Errorf("the leader sent a bad snapshot: %w", err)
	}
	c.confState = j.append.Snapshot.GetMetadata().GetConfState()
	c.appliedTerm = j.append.Snapshot.GetMetadata().GetTerm()
	c.snapshotIndex, c.logBytes, c.storage.oldest = c.machine.index, 0, 0
	c.hub.reset(c.machine.index)
	c.membersChanged()
	c.readsApplied()
	return nil
}

// applyAll gives all that is committed to the state machine.
func (c *cluster) applyAll() error {
	for len(c.applying) > 0 {
		if err := c.applyNext(); err != nil {
			return err
		}
	}
	return nil
}

// applyNext gives the next committed entry to the state machine, if there is one.
func (c *cluster) applyNext() error {
	if len(c.applying) == 0 {
		return nil
	}
	first := c.applying[0]
	e := first.Entries[c.taken]
	if err := c.applyEntry(e); err != nil {
		return err
	}
	if leader := c.core.Leader(); leader.Self && leader.Term == e.GetTerm() && c.readyTerm != leader.Term {
		c.readyTerm = leader.Term
		c.publish() // before a barrier is answered: who asked may write then
	}
	c.logBytes += len(e.GetData())
	c.appliedTerm = e.GetTerm()
	if c.taken++; c.taken < len(first.Entries) {
		return nil
	}
	c.applying[0] = nil // its entries may be megabytes
	c.applying, c.taken = c.applying[1:], 0
	c.readsApplied()
	if err := c.ask(); err != nil {
		return err
	}
	if err := c.maybeCapture(); err != nil {
		return err
	}
	return c.step(raftcore.Applied{Apply: first})
}

func (c *cluster) applyEntry(e *raftpb.Entry) error {
	index := e.GetIndex()
	switch {
	case e.GetType() != raftpb.EntryNormal:
		if err := c.applyChange(e); err != nil {
			return err
		}
	case len(e.GetData()) > 0:
		results, batch, err := c.machine.apply(index, e.GetData())
		if err != nil {
			return &wal.CorruptError{What: "log entry", Index: index, Err: err}
		}
		c.hub.add(batch)
		c.groups = max(0, c.groups-1)
		for _, r := range results {
			c.answer(r)
		}
		return nil
	}
	c.machine.skip(index)
	c.hub.add(Batch{Index: index})
	return nil
}

// maybeCapture starts a snapshot when it is time, or a follower needs one; never of a state in the middle of an Apply, since the log must
// keep what the core does not know to be applied.
func (c *cluster) maybeCapture() error {
	due := c.machine.index-c.snapshotIndex >= c.snapshotInterval.Load() || c.logBytes >= maxLogBytes || c.storage.wanted
	if c.capturing || c.rotating || !due || c.taken > 0 || c.confState == nil || c.machine.index == c.snapshotIndex {
		return nil
	}
	c.storage.wanted = false
	c.capturing, c.snapshotIndex, c.logBytes = true, c.machine.index, 0
	c.captures <- capture{state: c.machine.freeze(), meta: &raftpb.SnapshotMetadata{
		Index: proto.Uint64(c.machine.index), Term: proto.Uint64(c.appliedTerm), ConfState: proto.CloneOf(c.confState),
	}}
	return nil
}

// publish tells everybody who leads, and fails what waits for a leadership that ended.
func (c *cluster) publish() {
	leader := c.core.Leader()
	member := c.machine.members.get(leader.ID)
	now := Leadership{
		Term: leader.Term, LeaderID: member.GetNodeId(), LeaderAddr: member.GetAddress(),
		Self: leader.Self && c.readyTerm == leader.Term,
	}
	c.mu.Lock()
	before := c.lead
	if now != before {
		c.lead, c.settled = now, c.core.Settled()
		c.wake()
	}
	c.mu.Unlock()
	if now == before {
		return
	}
	c.report()
	if !leader.Self || leader.Term != before.Term {
		for _, waiting := range c.pending {
			for _, p := range waiting {
				p.done <- outcome{err: c.notLeader(true)}
			}
		}
		clear(c.pending)
		c.groups = 0
		c.gate.reset()
	}
	c.logger.Info("raft leadership", "leader", now.LeaderID, "term", now.Term, "self", now.Self)
}

// membersChanged tells the transport and whoever waits for a change.
func (c *cluster) membersChanged() {
	c.report()
	if c.transport != nil {
		c.transport.SetMembers(c.machine.members.list())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake()
}

// failAll answers whoever still waits when the loop has ended.
func (c *cluster) failAll() {
	for _, waiting := range c.pending {
		for _, p := range waiting {
			p.done <- outcome{err: ErrStopped}
		}
	}
	clear(c.pending)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lead, c.settled = Leadership{Term: c.lead.Term}, true
	c.wake()
}

func (c *cluster) tick() error {
	c.report()
	if err := c.readsTick(); err != nil {
		return err
	}
	if err := c.promote(); err != nil {
		return err
	}
	if err := c.watchDisk(); err != nil {
		return err
	}
	if err := c.passTime(); err != nil {
		return err
	}
	return c.maybeCapture()
}
