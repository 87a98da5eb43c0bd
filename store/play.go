package store

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/raftcore"
	"github.com/skep-io/skep/store/seal"
)

// Player plays a replicated store by hand, instead of Run's goroutines: the simulation (e2e/sim) drives the very code that
// production runs, in one goroutine and in virtual time. Everything that the loop does is a method; what goroutines do beside
// the loop is Work, which the owner does whenever it wants. Nothing in a Player waits.
//
// A method that returns an error has stopped the store, as Run's end would: ErrRemoved, or why it can't go on. After that, and
// after a simulated crash, the Player is dropped; only Close may be called.
type Player struct {
	s *Store
	c *cluster
}

// Play begins to play a store. It is called once, instead of Run.
func (s *Store) Play() (*Player, error) {
	p := &Player{s: s, c: s.cluster}
	return p, p.c.start()
}

// Store is the store that is played: for View, Watch, Leadership and Members.
func (p *Player) Store() *Store { return p.s }

// Tick says that 100 ms passed on this manager's clock.
func (p *Player) Tick() error { return p.c.tick() }

// Receive takes a message of another member, unless that was removed.
func (p *Player) Receive(from uint64, m *raftpb.Message) error {
	if p.c.machine.members.isRemoved(from) {
		return nil
	}
	return p.c.step(raftcore.Receive{From: from, Message: m})
}

// SnapshotData returns the data of a snapshot that is to be sent, see Sink.
func (p *Player) SnapshotData(meta *raftpb.SnapshotMetadata) ([]byte, error) {
	return p.c.wal.ReadSnapshot(meta.GetIndex(), meta.GetTerm())
}

// SnapshotSent says how sending a snapshot to another member ended.
func (p *Player) SnapshotSent(id uint64, ok bool) error {
	return p.c.step(raftcore.SnapshotSent{ID: id, OK: ok})
}

// Pending is an answer that comes later, or, when the store stops, never.
type Pending struct {
	proposal chan outcome
	barrier  chan error
}

// Answer returns what became of the call: nil, ErrConflict when the transaction must be made again, or why it was not done. ok is
// false as long as that is not known, and once it was told.
func (p *Pending) Answer() (ok bool, err error) {
	select {
	case err := <-p.barrier:
		return true, err
	case o := <-p.proposal:
		if err := errors.Join(o.err, o.result.err); !errors.Is(err, errRefused) {
			return true, err
		}
		return true, ErrConflict
	default:
		return false, nil
	}
}

// Propose makes a transaction at a time, for Flush to propose. Its error concerns the transaction only, as Update's does, and may
// come from a state that is behind: this manager may have been deposed without knowing it.
func (p *Player) Propose(now time.Time, requestID string, fn func(Tx) error) (*Pending, error) {
	transaction, err := p.s.prepare(now, requestID, nil, fn)
	if err != nil {
		return nil, err
	}
	if transaction == nil {
		return nil, fmt.Errorf("propose: %w: the transaction is empty", ErrInvalid)
	}
	done := make(chan outcome, 1)
	select {
	case p.c.proposals <- &proposal{prepared: *transaction, done: done}:
		return &Pending{proposal: done}, nil
	default:
		return nil, ErrBusy
	}
}

// Flush proposes what waits, if the loop would take proposals now.
func (p *Player) Flush() error {
	if !p.c.takesProposals() || len(p.c.proposals) == 0 {
		return nil
	}
	return p.c.group(<-p.c.proposals)
}

// Barrier asks for a linearizable read: it is answered once View shows everything acknowledged before.
func (p *Player) Barrier() (*Pending, error) {
	done := make(chan error, 1)
	return &Pending{barrier: done}, p.c.read(done)
}

// Work is something for the disk. The owner calls Do, in which time passes, and then Finish, which belongs to the loop. One work
// of each kind may be on its way at a time.
type Work struct {
	// Appends are what the work makes durable: for who watches it, or plants a bug.
	Appends []*raftcore.Append
	// Do changes the disk. After an error the store must stop.
	Do func() error
	// Finish goes on with what waited for it.
	Finish func() error
}

// Disk returns the next work for the log, or nil. The one before must be finished.
func (p *Player) Disk() *Work {
	jobs := p.c.queue
	if len(jobs) == 0 {
		return nil
	}
	p.c.queue = nil
	w := &Work{
		Do:     func() error { return p.c.writeJobs(jobs) },
		Finish: func() error { return p.c.finish(jobs) },
	}
	for _, j := range jobs {
		if j.append != nil {
			w.Appends = append(w.Appends, j.append)
		}
	}
	return w
}

// Applying reports whether something is committed and not in the state machine yet.
func (p *Player) Applying() bool { return len(p.c.applying) > 0 }

// Apply applies the next entry. The loop does so once in each of its turns; here anything may come in between.
func (p *Player) Apply() error { return p.c.applyNext() }

// Snapshot returns the snapshot that is to be written, or nil.
func (p *Player) Snapshot() *Work {
	select {
	case taken := <-p.c.captures:
		return &Work{
			Do:     func() error { return p.c.writeCapture(taken) },
			Finish: func() error { return p.c.captured(taken) },
		}
	default:
		return nil
	}
}

// Spare returns the making of the log's next segment before it is needed, or nil. An error of its Do is no reason to stop.
func (p *Player) Spare() *Work {
	if p.c.wal.Prepared() {
		return nil
	}
	return &Work{Do: p.c.wal.Prepare, Finish: func() error { return nil }}
}

// Reseal begins what Store.Reseal does: a fresh data key, and then another KEK.
func (p *Player) Reseal(kek seal.Key, source seal.Source) *Pending {
	done := make(chan error, 1)
	p.c.rotations = append(p.c.rotations, rotation{then: func() error { return p.c.wal.Ring().Rewrap(kek, source) }, done: done})
	p.c.startRotation()
	return &Pending{barrier: done}
}

// AddMember proposes a learner, on the leader. The proposal may get lost: see Members.
func (p *Player) AddMember(member *api.Member) error {
	return p.c.proposeChange(raftpb.ConfChangeAddLearnerNode, member)
}

// RemoveMember proposes to remove a member, on the leader, unless that would lose the quorum. The proposal may get lost.
func (p *Player) RemoveMember(member *api.Member) error {
	if p.c.quorumWithout(member.GetRaftId()) != nil {
		return nil
	}
	return p.c.proposeChange(raftpb.ConfChangeRemoveNode, proto.CloneOf(member))
}

// Removed reports whether a member was removed, as far as this manager knows.
func (p *Player) Removed(raftID uint64) bool { return p.c.machine.members.isRemoved(raftID) }

// Transfer hands leadership over, if there is somebody to take it.
func (p *Player) Transfer() error {
	err := p.c.transfer()
	if errors.Is(err, ErrQuorum) {
		return nil
	}
	return err
}

// StateHash is Store.StateHash.
func (p *Player) StateHash() (Index, [32]byte, error) { return p.c.machine.freeze().hash() }

// Close frees the disk without a word, as the end of a process does.
func (p *Player) Close() error { return p.c.wal.Close() }
