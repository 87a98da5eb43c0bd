package raftcore

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
)

// Errors that the owner can branch on.
var (
	// ErrDropped is returned when a proposal was not taken: there is no leader here, or it is busy. It will never be applied.
	ErrDropped = errors.New("proposal dropped")
	// ErrRefused is returned when a peer's message can't be right; it was ignored.
	ErrRefused = errors.New("message refused")
	// ErrBroken is returned when the library found its own state impossible, for example because the disk lost what it had
	// acknowledged. The core must not be used any more.
	ErrBroken = errors.New("raft state is inconsistent")
)

// Ticks, for ticks of 100 ms.
const (
	electionTicks  = 10
	heartbeatTicks = 1
)

// Limits of what is in flight.
const (
	maxSizePerMessage = 1 << 20
	maxInflight       = 256
	// maxInflightBytes bounds what a slow follower keeps in the leader's memory.
	maxInflightBytes = 16 << 20
	// maxUncommitted makes proposals fail instead of filling the memory of a leader that lost its majority.
	maxUncommitted = 64 << 20
	// maxApplying bounds the entries of one Apply.
	maxApplying = 8 << 20
)

// Config is what a Core starts from.
type Config struct {
	// ID is the raft id of this member, never 0.
	ID uint64
	// Storage holds what is durable. The core reads it while it steps.
	Storage raft.Storage
	// Applied is the last index that the state machine has.
	Applied uint64
	// Logger takes what the library says. Its Panic methods must panic.
	Logger raft.Logger
	// InsecureLeaseReads lets a leader answer a Read without asking a majority, as long as it heard of one within an election
	// time-out. That saves a round trip, and is wrong when clocks run apart or a process is paused for that long.
	InsecureLeaseReads bool
}

func (c Config) reads() raft.ReadOnlyOption {
	if c.InsecureLeaseReads {
		return raft.ReadOnlyLeaseBased
	}
	return raft.ReadOnlySafe
}

// Core is one member. It is for one goroutine at a time.
type Core struct {
	rn         *raft.RawNode
	id         uint64
	last       uint64 // index of the last entry in the log, durable or not
	leader     Leader
	broken     bool
	ticks      int
	succession succession
	// heard is the tick of the last message of each member that was heard of within the last election time-out. The library's
	// RecentActive does not do: it is false for everyone just after each check of the quorum.
	heard map[uint64]int
	led   int // the tick at which this member became leader
}

// Leader is who leads, as this member knows it.
type Leader struct {
	Term uint64
	// ID is the raft id of the leader, 0 while none is known.
	ID uint64
	// Self is true on the leader.
	Self bool
}

// New returns a core that continues from what is in the storage.
func New(cfg Config) (c *Core, err error) {
	defer guard(&err)
	last, err := cfg.Storage.LastIndex()
	if err != nil {
		return nil, fmt.Errorf("read last index: %w", err)
	}
	rn, err := raft.NewRawNode(&raft.Config{
		ID: cfg.ID, Storage: cfg.Storage, Applied: cfg.Applied, Logger: cfg.Logger,
		ElectionTick: electionTicks, HeartbeatTick: heartbeatTicks, PreVote: true, CheckQuorum: true,
		MaxSizePerMsg: maxSizePerMessage, MaxInflightMsgs: maxInflight, MaxInflightBytes: maxInflightBytes,
		MaxUncommittedEntriesSize: maxUncommitted, MaxCommittedSizePerReady: maxApplying,
		AsyncStorageWrites: true, DisableProposalForwarding: true, StepDownOnRemoval: true, ReadOnlyOption: cfg.reads(),
	})
	if err != nil {
		return nil, fmt.Errorf("start raft: %w", err)
	}
	status := rn.BasicStatus()
	return &Core{rn: rn, id: cfg.ID, last: last, leader: Leader{Term: status.GetTerm()}, heard: map[uint64]int{}}, nil
}

// guard turns a panic of the library into ErrBroken. Use it with defer.
func guard(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%w: %v", ErrBroken, r)
	}
}

// Input is something that happened. The types are those below.
type Input interface{ input() }

type (
	// Tick says that 100 ms passed.
	Tick struct{}
	// Receive is a message that the member with the raft id From sent, as the transport authenticated it.
	Receive struct {
		From    uint64
		Message *raftpb.Message
	}
	// Propose asks for an entry, on the leader.
	Propose struct{ Data []byte }
	// ProposeChange asks for a change of the membership, on the leader. One at a time is in the log.
	ProposeChange struct{ Change raftpb.ConfChangeI }
	// Read asks for the index that a linearizable read must wait for; the answer is an Effects.Reads with the same ID, or
	// never comes. No member may have used the ID before: answers and confirmations are told apart by nothing else.
	Read struct{ ID uint64 }
	// Transfer asks the leader to hand over to another member.
	Transfer struct{ To uint64 }
	// Campaign starts an election now.
	Campaign struct{}
	// Unreachable says that messages to a member were lost.
	Unreachable struct{ ID uint64 }
	// SnapshotSent says how sending a snapshot ended.
	SnapshotSent struct {
		ID uint64
		OK bool
	}
	// Appended says that an append is durable.
	Appended struct{ Append *Append }
	// Applied says that the state machine has the entries.
	Applied struct{ Apply *Apply }
)

func (Tick) input()          {}
func (Receive) input()       {}
func (Propose) input()       {}
func (ProposeChange) input() {}
func (Read) input()          {}
func (Transfer) input()      {}
func (Campaign) input()      {}
func (Unreachable) input()   {}
func (SnapshotSent) input()  {}
func (Appended) input()      {}
func (Applied) input()       {}

// Effects is what the owner has to do, see the rules in the package comment.
type Effects struct {
	Send    []*raftpb.Message
	Appends []*Append
	Applies []*Apply
	Reads   []ReadReady
}

// Append is what must become durable, in one step. All parts may be missing.
type Append struct {
	// HardState is empty when it did not change.
	HardState *raftpb.HardState
	// Entries replace what the log has from the first one's index on.
	Entries []*raftpb.Entry
	// Snapshot replaces the whole log and state, or nil.
	Snapshot *raftpb.Snapshot
	// Send leaves when all that is durable.
	Send []*raftpb.Message

	self []*raftpb.Message
}

// Apply is committed entries, in order, without gaps.
type Apply struct {
	Entries []*raftpb.Entry

	self []*raftpb.Message
}

// ReadReady answers a Read: once Index is applied, what the state machine says is linearizable.
type ReadReady struct{ ID, Index uint64 }

// Step takes an input and returns what it leads to. ErrDropped and ErrRefused concern the input only, and the effects are
// valid; after ErrBroken they are not.
func (c *Core) Step(in Input) (effects Effects, err error) {
	if c.broken {
		return Effects{}, ErrBroken
	}
	defer func() { c.broken = errors.Is(err, ErrBroken) }()
	defer guard(&err)
	err = c.take(in)
	c.drain(&effects)
	return effects, err
}

func (c *Core) take(in Input) error {
	switch in := in.(type) {
	case Tick:
		c.ticks++
		for id, last := range c.heard {
			if c.ticks-last > electionTicks {
				delete(c.heard, id)
			}
		}
		c.rn.Tick()
		return c.succeed()
	case Receive:
		if err := c.check(in); err != nil {
			return err
		}
		c.heard[in.From] = c.ticks
		if in.From == c.leader.ID {
			c.succession.heard()
		}
		if err := c.rn.Step(in.Message); err != nil {
			return fmt.Errorf("%w: %v", ErrRefused, err)
		}
	case Propose:
		return dropped(c.rn.Propose(in.Data))
	case ProposeChange:
		return dropped(c.rn.ProposeConfChange(in.Change))
	case Read:
		c.rn.ReadIndex(binary.BigEndian.AppendUint64(nil, in.ID))
	case Transfer:
		c.rn.TransferLeader(in.To)
	case Campaign:
		return c.rn.Campaign()
	case Unreachable:
		c.succession.gone = c.succession.gone || in.ID == c.leader.ID
		c.rn.ReportUnreachable(in.ID)
	case SnapshotSent:
		status := raft.SnapshotFailure
		if in.OK {
			status = raft.SnapshotFinish
		}
		c.rn.ReportSnapshot(in.ID, status)
	case Appended:
		c.stepSelf(in.Append.self)
	case Applied:
		c.stepSelf(in.Apply.self)
	default:
		return fmt.Errorf("%w: unknown input %T", ErrRefused, in)
	}
	return nil
}

func dropped(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %v", ErrDropped, err)
	}
	return nil
}

func (c *Core) stepSelf(messages []*raftpb.Message) {
	for _, m := range messages {
		_ = c.rn.Step(m) // refused when this member was removed meanwhile; then it does not matter
	}
}

// drain collects all that the library has ready.
func (c *Core) drain(effects *Effects) {
	for c.rn.HasReady() {
		rd := c.rn.Ready()
		for _, m := range rd.Messages {
			switch m.GetTo() {
			case raft.LocalAppendThread:
				effects.Appends = append(effects.Appends, c.newAppend(m))
			case raft.LocalApplyThread:
				effects.Applies = append(effects.Applies, &Apply{Entries: m.GetEntries(), self: m.GetResponses()})
			default:
				effects.Send = append(effects.Send, m)
			}
		}
		for _, r := range rd.ReadStates {
			if len(r.RequestCtx) == 8 {
				effects.Reads = append(effects.Reads, ReadReady{ID: binary.BigEndian.Uint64(r.RequestCtx), Index: r.Index})
			}
		}
	}
	status := c.rn.BasicStatus()
	now := Leader{Term: status.GetTerm(), ID: status.Lead, Self: status.RaftState == raft.StateLeader}
	if now.Self && !c.leader.Self {
		c.led = c.ticks
	}
	c.leader = now
}

// Heard is how many members were heard of within the last election time-out.
func (c *Core) Heard() int { return len(c.heard) }

// Settled reports whether silence means something: a leader that was just elected has heard only of those who voted for it. It is
// true once all have been heard of or an election time-out has passed, and on those who do not lead.
func (c *Core) Settled() bool {
	if !c.leader.Self || c.ticks-c.led > electionTicks {
		return true
	}
	for _, p := range c.Progress() {
		if !p.Active {
			return false
		}
	}
	return true
}

func (c *Core) newAppend(m *raftpb.Message) *Append {
	a := &Append{Entries: m.GetEntries(), HardState: &raftpb.HardState{}}
	if m.Term != nil || m.Vote != nil || m.Commit != nil {
		a.HardState = &raftpb.HardState{Term: m.Term, Vote: m.Vote, Commit: m.Commit}
	}
	if !raft.IsEmptySnap(m.GetSnapshot()) {
		a.Snapshot = m.GetSnapshot()
		c.last = a.Snapshot.GetMetadata().GetIndex()
	}
	if n := len(a.Entries); n > 0 {
		c.last = a.Entries[n-1].GetIndex()
	}
	for _, r := range m.GetResponses() {
		if r.GetTo() == c.id {
			a.self = append(a.self, r)
		} else {
			a.Send = append(a.Send, r)
		}
	}
	return a
}

// Configure makes a change of the membership effective, and returns the new one. The owner calls it when it applies an entry
// that carries one, unless it refuses it, as all members must alike.
func (c *Core) Configure(change raftpb.ConfChangeI) (state *raftpb.ConfState, err error) {
	if c.broken {
		return nil, ErrBroken
	}
	defer func() { c.broken = errors.Is(err, ErrBroken) }()
	defer guard(&err)
	return c.rn.ApplyConfChange(change), nil
}

// Leader returns who leads.
func (c *Core) Leader() Leader { return c.leader }

// Commit returns the last committed index.
func (c *Core) Commit() uint64 { return c.rn.BasicStatus().GetCommit() }

// Progress describes another member, as the leader sees it.
type Progress struct {
	// Match is the last index that the member is known to have.
	Match uint64
	// Active says whether it was heard of within the last election time-out.
	Active bool
	// Learner says that it does not vote.
	Learner bool
	// Replicating says that it follows the log, as opposed to needing a snapshot or being probed.
	Replicating bool
}

// Progress describes all members by raft id, on the leader; elsewhere it is empty.
func (c *Core) Progress() map[uint64]Progress {
	all := map[uint64]Progress{}
	if !c.leader.Self {
		return all
	}
	c.rn.WithProgress(func(id uint64, typ raft.ProgressType, p tracker.Progress) {
		_, heard := c.heard[id]
		all[id] = Progress{
			Match: p.Match, Active: heard || id == c.id,
			Learner: typ == raft.ProgressTypeLearner, Replicating: p.State == tracker.StateReplicate,
		}
	})
	return all
}
