package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/object"
)

// Store is the replicated state of a cluster, on one manager. All methods are safe for concurrent use.
type Store struct {
	// Constant after the constructor.
	machine *machine
	hub     *hub
	log     log
	cluster *cluster // log of a replicated store, nil for a local one
}

// log orders transactions: Raft, or the local order of a store without peers.
type log interface {
	// propose gets a transaction into the log and returns once it is applied here.
	propose(ctx context.Context, t prepared) (result, error)
	// barrier returns once everything that was acknowledged anywhere before the call is applied here.
	barrier(ctx context.Context) error
	leadership() (Leadership, <-chan struct{})
	status() Status
	// between calls fn between two entries.
	between(ctx context.Context, fn func(*machine) error) error
}

// Leadership is who leads, as this manager knows it.
type Leadership struct {
	// Term is the Raft term. It only grows, and each term has one leader at most: it fences what a leader hands out.
	Term uint64
	// LeaderID and LeaderAddr are the leader's node id and host:port, or empty while no leader is known.
	LeaderID, LeaderAddr string
	// Self is true on the leader, from the moment on when it has applied all writes of former leaders.
	Self bool
}

// Status describes the Raft group, and this manager's place in it.
type Status struct {
	Leadership
	NodeID string
	RaftID uint64
	// Committed and Applied are the last log entries that are known to be, or that this manager has.
	Committed, Applied Index
	// Members are all managers of the group, ordered by raft id; empty for a local store.
	Members []MemberStatus
	// Settled says that a member which is not Reachable can be taken for dead, see Settle.
	Settled bool
}

// MemberStatus is one manager of the Raft group.
type MemberStatus struct {
	// Member is never nil and must not be changed.
	Member *api.Member
	// Leader is true for the leader.
	Leader bool
	// Reachable says whether the member was heard of lately. Only the leader knows it; elsewhere it is true for the leader
	// and for this manager alone.
	Reachable bool
	// Match is the last log entry that the member is known to have. Only the leader knows it.
	Match Index
}

// View calls fn with a snapshot of the local state. It never waits, for writers neither; the state may lag behind the
// leader's, see Barrier. It returns fn's error.
func (s *Store) View(fn func(ReadTx) error) error { return fn(s.machine.view().read()) }

// Barrier waits until this manager has applied everything that was acknowledged before the call, on whichever manager:
// after it, View is linearizable (I1). It takes a round trip to a majority, and an error means that it is not known how
// old the local state is.
func (s *Store) Barrier(ctx context.Context) error { return s.log.barrier(ctx) }

// Update calls fn with a transaction, commits its changes, and returns once they are applied here, so that View shows them.
// Nothing is locked meanwhile: when somebody else committed a conflicting change first, fn runs again on a newer snapshot.
// So fn must do nothing but read and change tx, and set variables of its caller afresh each time.
//
// requestID makes retries safe: a request that was applied before returns a *DuplicateError instead of running fn or being
// applied again. With an empty requestID the store makes one up, and only its own retries are covered.
//
// On a manager that is not the leader it returns a *NotLeaderError. It returns the error of fn as it is, once that came of a state with
// everything that was acknowledged before the call (I1): a leader that was deposed may not know yet. It returns ErrConflict when
// others were faster too often, a *LimitError when the transaction is too large, and an *OutdatedError when another manager would not
// understand it. When ctx ends, it returns at once, and
// the write may still be applied.
func (s *Store) Update(ctx context.Context, requestID string, fn func(Tx) error) error {
	if requestID == "" {
		requestID = ownPrefix + object.NewID()
	} else if len(requestID) > maxRequestID || requestID[:1] == ownPrefix {
		return fmt.Errorf("request id: %w: it must have 1 to %d characters and not start with %q", ErrInvalid, maxRequestID, ownPrefix)
	}
	rider := riderOf(ctx)
	current := false // the view is known to have all that was acknowledged before the call
	for range maxAttempts {
		transaction, err := s.prepare(time.Now(), requestID, rider, fn)
		if refusal := (*refusalError)(nil); errors.As(err, &refusal) {
			if current {
				return refusal.err
			}
			if err := s.confirm(ctx); err != nil {
				return err
			}
			current = true
			continue
		}
		if err != nil || transaction == nil {
			return err
		}
		done, err := s.log.propose(ctx, *transaction)
		if errors.Is(err, ErrOutdated) && transaction.ridden {
			rider = nil // the audit log begins when all managers know it
			continue
		}
		if err != nil {
			return err
		}
		if done.err == nil && transaction.ridden {
			rider.Committed()
		}
		switch {
		case errors.Is(done.err, ErrDuplicate) && requestID[:1] == ownPrefix:
			return nil // nobody else knows the id: it was this very request
		case !errors.Is(done.err, errRefused):
			return done.err
		}
		current = true // the entry came after the call, and is applied
	}
	return fmt.Errorf("gave up after %d attempts: %w", maxAttempts, ErrConflict)
}

// confirm is Barrier, as long as this manager leads.
func (s *Store) confirm(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	confirmed := make(chan error, 1)
	go func() { confirmed <- s.Barrier(ctx) }()
	for {
		leadership, changed := s.log.leadership()
		if !leadership.Self {
			return &NotLeaderError{LeaderID: leadership.LeaderID, LeaderAddr: leadership.LeaderAddr}
		}
		select {
		case err := <-confirmed:
			return err
		case <-changed:
		}
	}
}

// refusalError is what the closure of a transaction returned.
type refusalError struct{ err error }

func (e *refusalError) Error() string { return e.err.Error() }
func (e *refusalError) Unwrap() error { return e.err }

// prepared is a transaction that can be proposed.
type prepared struct {
	requestID string
	encoded   []byte
	protocol  uint32 // that all members must understand
	ridden    bool   // there is an event of a rider in it
}

// prepare runs fn at a time and encodes its changes, with the event of a rider or nil; the result is nil when there are none. An error of fn
// is a *refusalError.
func (s *Store) prepare(now time.Time, requestID string, rider Rider, fn func(Tx) error) (*prepared, error) {
	if leadership, _ := s.log.leadership(); !leadership.Self {
		return nil, &NotLeaderError{LeaderID: leadership.LeaderID, LeaderAddr: leadership.LeaderAddr}
	}
	// The view comes first: a request that is applied in between conflicts with what fn reads.
	v := s.machine.view()
	if earlier := s.machine.requests.find(requestID); earlier != nil && earlier.Index <= v.index {
		return nil, earlier // one that is being applied just now is not in the view yet: the state machine refuses it
	}
	tx := newTx(v)
	if err := fn(tx); err != nil {
		return nil, &refusalError{err}
	}
	own := len(tx.events)
	if err := tx.ride(rider); err != nil {
		return nil, err
	}
	if len(tx.changes)+len(tx.events) == 0 {
		return nil, nil
	}
	protocol := protocolOf(tx.changes)
	if len(tx.events) > 0 {
		protocol = max(protocol, protocolAudit)
	}
	encoded, err := proto.Marshal(&api.Transaction{
		RequestId: requestID, ProposedAt: timestamppb.New(now), Changes: tx.changes, AuditEvents: tx.events,
	})
	if err != nil {
		return nil, fmt.Errorf("encode transaction: %w", err)
	}
	if len(encoded) > MaxEntrySize-entryOverhead {
		return nil, &LimitError{What: "transaction", Size: len(encoded), Limit: MaxEntrySize - entryOverhead}
	}
	return &prepared{requestID, encoded, protocol, len(tx.events) > own}, nil
}

// Watch starts a watcher of some kinds of objects, or of all. From 0 it starts with a snapshot; from an index that an
// earlier Watcher, here or on another manager, had as its Position, it goes on from there: then it waits until this manager
// has applied that index, and returns ErrResync when the changes since are not kept any more.
func (s *Store) Watch(ctx context.Context, from Index, kinds ...object.Kind) (*Watcher, error) {
	if from == 0 {
		return s.watchAll(kinds)
	}
	for {
		next, err := s.hub.arrived(from)
		if err != nil {
			return nil, err
		}
		if next == nil {
			break
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-next:
		}
	}
	at, err := s.hub.at(from)
	if err != nil {
		return nil, err
	}
	return &Watcher{hub: s.hub, kinds: kinds, position: from, at: at}, nil
}

// watchAll starts a watcher with a snapshot.
func (s *Store) watchAll(kinds []object.Kind) (*Watcher, error) {
	for {
		v := s.machine.view()
		at, err := s.hub.at(v.index)
		if errors.Is(err, ErrResync) {
			continue // the state jumped in between: there is a newer view
		}
		return &Watcher{hub: s.hub, kinds: kinds, snapshot: v.read(), position: v.index, at: at}, err
	}
}

// Leader returns who leads: its node id and address, empty while no leader is known, and whether it is this manager.
func (s *Store) Leader() (id, addr string, self bool) {
	leadership, _ := s.log.leadership()
	return leadership.LeaderID, leadership.LeaderAddr, leadership.Self
}

// Leadership returns who leads, and a channel that is closed when that changes.
func (s *Store) Leadership() (Leadership, <-chan struct{}) { return s.log.leadership() }

// Status describes the Raft group as this manager sees it.
func (s *Store) Status() Status { return s.log.status() }

// Settle waits until this manager knows which members it can reach, if it leads: until it has heard of all, or leads for an election
// time-out (1 s). Before that, a manager that is well may look as if it were dead.
func (s *Store) Settle(ctx context.Context) error {
	for {
		_, changed := s.log.leadership()
		if s.log.status().Settled {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// StateHash returns a hash of the whole state and the index that it belongs to: equal indexes have equal hashes on all
// managers (I3). It takes time in proportion to the state, and holds up nobody.
func (s *Store) StateHash(ctx context.Context) (index Index, hash [sha256.Size]byte, err error) {
	f, err := s.freeze(ctx)
	if err != nil {
		return 0, hash, err
	}
	return f.hash()
}

// Snapshot returns the whole state, for a backup. The objects in it are shared: they must not be changed.
func (s *Store) Snapshot(ctx context.Context) (*api.StoreSnapshot, error) {
	f, err := s.freeze(ctx)
	if err != nil {
		return nil, err
	}
	return f.message()
}

func (s *Store) freeze(ctx context.Context) (f *frozen, err error) {
	err = s.log.between(ctx, func(m *machine) error {
		f = m.freeze()
		return nil
	})
	return f, err
}
