package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/store/object"
)

const (
	// segmentSize is the room for entries in a segment of the audit log. It is allocated at once, so that an entry costs no copy of those
	// before it; and a state of a few entries costs as much.
	segmentSize = 64 << 10
	// maxEvent is the size of an encoded event of the audit log: what package chain makes of the longest texts is less.
	maxEvent = 4 << 10
	// protocolAudit is the first protocol that has an audit log.
	protocolAudit = 2
)

// Rider adds events to the audit log in the transactions of others, so that no change exists without its entry, nor an entry
// without its change. Its methods are called by the goroutine that calls Update.
type Rider interface {
	// Event returns the encoded event for a transaction that makes changes, or nil for none. It is called each time that
	// the transaction is made. A deletion has the object as it was.
	Event(changes []Change) []byte
	// Committed is called when a transaction with an event is applied.
	Committed()
}

type riderKey struct{}

// WithRider returns a context whose updates carry a rider. As long as some manager knows no audit log they go without.
func WithRider(ctx context.Context, r Rider) context.Context {
	return context.WithValue(ctx, riderKey{}, r)
}

func riderOf(ctx context.Context) Rider {
	r, _ := ctx.Value(riderKey{}).(Rider)
	return r
}

// ride adds the event of a rider, or nil, to a transaction that changes something.
func (t *tx) ride(r Rider) error {
	if r == nil {
		return nil
	}
	var changes []Change
	for _, c := range t.changes {
		change, err := t.changeOf(c)
		if err != nil {
			return err
		}
		if change.Action != 0 {
			changes = append(changes, change)
		}
	}
	if len(changes) == 0 {
		return nil
	}
	event := r.Event(changes)
	if event == nil {
		return nil
	}
	return t.Audit(event)
}

// changeOf says what a change of the transaction does; a check does nothing.
func (t *tx) changeOf(c *api.Change) (Change, error) {
	o := object.Unwrap(c.GetObject())
	switch c.GetAction() {
	case api.ChangeAction_CHANGE_ACTION_CREATE:
		return Change{Action: ActionCreate, Object: o}, nil
	case api.ChangeAction_CHANGE_ACTION_UPDATE:
		old, err := t.view.read().get(refOf(o))
		return Change{Action: ActionUpdate, Object: o, Old: old}, err
	case api.ChangeAction_CHANGE_ACTION_DELETE:
		old, err := t.view.read().get(refOf(o))
		return Change{Action: ActionDelete, Object: old, Old: old}, err
	default:
		return Change{}, nil
	}
}

// Audit implements Tx.
func (t *tx) Audit(event []byte) error {
	if len(event) > maxEvent {
		return &LimitError{What: "audit event", Size: len(event), Limit: maxEvent}
	}
	t.events = append(t.events, event)
	t.size += len(event)
	return nil
}

// record appends the events of a transaction to the audit log.
func (m *machine) record(edit *edit, t *api.Transaction) []Change {
	var changes []Change
	for events := t.GetAuditEvents(); len(events) > 0; {
		change, rest := m.extend(edit, t.GetProposedAt(), events)
		changes, events = append(changes, change), rest
	}
	return changes
}

// extend appends events to the last segment, or to a new one, and returns those that have no room there.
func (m *machine) extend(edit *edit, now *timestamppb.Timestamp, events [][]byte) (Change, [][]byte) {
	old := lastSegment(&edit.tables)
	s, change := m.segmentAfter(old, events[0]), Change{Action: ActionCreate}
	if old != nil && s.GetId() == old.GetId() {
		change = Change{Action: ActionUpdate, Old: old}
	}
	at := now.AsTime().UnixNano()
	for len(events) > 0 && (s.Count == 0 || len(s.Entries)+chain.AppendedSize(events[0]) <= segmentSize) {
		s.Head = chain.Next(s.GetHead(), s.GetFirst()+s.GetCount(), at, events[0])
		s.Entries = chain.Append(s.GetEntries(), at, events[0])
		s.Count++
		events = events[1:]
	}
	s.Meta = &api.Meta{Version: m.index, CreatedAt: now, UpdatedAt: now}
	if change.Action == ActionUpdate {
		s.Meta.CreatedAt = old.GetMeta().GetCreatedAt()
	}
	m.kindVersions[object.KindAuditSegment] = m.index
	change.Object, change.At = s, now.AsTime()
	edit.put(s)
	return change, events
}

// segmentAfter returns the next version of the last segment, or nil, if it has room for an event, else the segment that follows it.
func (m *machine) segmentAfter(last *api.AuditSegment, event []byte) *api.AuditSegment {
	switch {
	case last == nil:
		origin := chain.Genesis(m.clusterID)
		return &api.AuditSegment{Id: object.SequenceID(1), First: 1, Previous: origin, Head: origin, Entries: room(event)}
	case len(last.GetEntries())+chain.AppendedSize(event) > segmentSize:
		first := last.GetFirst() + last.GetCount()
		return &api.AuditSegment{
			Id: object.SequenceID(first), First: first, Previous: last.GetHead(), Head: last.GetHead(), Entries: room(event),
			RecoveredAt: last.GetRecoveredAt(),
		}
	}
	return shallow(last) // sharing the memory of entries: each version sees as many as it has, and only the last is appended to
}

// unshared returns a segment whose entries are not appended to where they are: another store may have them, too.
func unshared(s *api.AuditSegment) *api.AuditSegment {
	own := shallow(s)
	own.Entries = slices.Clip(own.Entries)
	return own
}

func shallow(s *api.AuditSegment) *api.AuditSegment {
	c := &api.AuditSegment{
		Id: s.GetId(), Meta: s.GetMeta(), First: s.GetFirst(), Count: s.GetCount(), Previous: s.GetPrevious(), Head: s.GetHead(),
		Entries: s.GetEntries(), RecoveredAt: s.GetRecoveredAt(),
	}
	c.ProtoReflect().SetUnknown(s.ProtoReflect().GetUnknown())
	return c
}

// room returns the memory for the entries of a segment that begins with an event.
func room(event []byte) []byte { return make([]byte, 0, max(segmentSize, chain.AppendedSize(event))) }

// lastSegment returns the segment that is appended to, or nil while there is no audit log.
func lastSegment(in *tables) *api.AuditSegment {
	s, _ := in.last(object.KindAuditSegment).(*api.AuditSegment)
	return s
}

// checkSegments returns errRefused when a transaction does to the audit log anything but drop its oldest segments, all but the last.
func checkSegments(in *tables, t *api.Transaction) error {
	var dropped []string
	for _, c := range t.GetChanges() {
		s := c.GetObject().GetAuditSegment()
		switch {
		case s == nil, c.GetAction() == api.ChangeAction_CHANGE_ACTION_CHECK:
		case c.GetAction() != api.ChangeAction_CHANGE_ACTION_DELETE:
			return fmt.Errorf("the audit log is not written like this: %w", errRefused)
		default:
			dropped = append(dropped, s.GetId())
		}
	}
	if len(dropped) == 0 {
		return nil
	}
	for s := range in.all(object.KindAuditSegment, ByIDPrefix("")) {
		if len(dropped) == 0 {
			return nil
		}
		if s.GetId() != dropped[0] {
			return fmt.Errorf("audit segment %s is not the oldest: %w", dropped[0], errRefused)
		}
		dropped = dropped[1:]
	}
	return fmt.Errorf("the last segment of the audit log stays: %w", errRefused)
}

// recovered notes in the audit log, if there is one, that the state goes on from here without what came later. That is how nodes
// that saw more tell it from a theft of the past: see docs/adr/0019-audit-log.md.
func (m *machine) recovered(now time.Time, how string) {
	edit := m.tables.edit()
	last := lastSegment(&edit.tables)
	if last == nil {
		return
	}
	event := chain.Encode(&api.AuditEvent{
		Method: how, CallerKind: "admin", ObjectKind: object.KindCluster.String(), ObjectId: m.clusterID, Result: "ok",
		Summary: fmt.Sprintf("the swarm goes on from its state after entry %d", chain.Head(last).GetSequence()),
	})
	change, _ := m.extend(edit, timestamppb.New(now), [][]byte{event})
	s := change.Object.(*api.AuditSegment)
	s.RecoveredAt = max(now.UnixNano(), s.GetRecoveredAt()+1)
	m.tables = edit.done()
	m.publish()
}

// AuditHead returns the place after the last entry of the audit log, or nil while the cluster keeps none.
func AuditHead(tx ReadTx) (*api.AuditHead, error) {
	s := tx.lastSegment()
	if s == nil {
		return nil, nil
	}
	return chain.Head(s), nil
}

func (t *readTx) lastSegment() *api.AuditSegment { return lastSegment(t.tables) }

// SegmentOf returns the segment of the audit log that has an entry, or an error that matches ErrNotFound when it is not kept any more or
// not there yet.
func SegmentOf(tx ReadTx, sequence uint64) (*api.AuditSegment, error) {
	s := tx.segmentOf(sequence)
	if s == nil || sequence >= s.GetFirst()+s.GetCount() {
		return nil, fmt.Errorf("audit entry %d %w", sequence, ErrNotFound)
	}
	return s, nil
}

func (t *readTx) segmentOf(sequence uint64) *api.AuditSegment {
	s, _ := t.tables.upTo(object.KindAuditSegment, object.SequenceID(sequence)).(*api.AuditSegment)
	return s
}

// AuditProof says what a node may know that saw the audit log up to an entry: the head, and the hash of that entry, which only a store
// has that has the entry. Nil while the cluster keeps no log. sequence is 0 for a node that saw nothing.
func AuditProof(tx ReadTx, sequence uint64) (*api.AuditProof, error) {
	head, err := AuditHead(tx)
	if err != nil || head == nil {
		return nil, err
	}
	oldest := tx.oldestSegment()
	proof := &api.AuditProof{Head: head, Oldest: oldest.GetFirst()}
	if sequence+1 == oldest.GetFirst() {
		proof.Hash = oldest.GetPrevious()
		return proof, nil
	}
	s, err := SegmentOf(tx, sequence)
	if errors.Is(err, ErrNotFound) {
		return proof, nil
	}
	if err != nil {
		return nil, err
	}
	if sequence == head.GetSequence() {
		proof.Hash = head.GetHash()
		return proof, nil
	}
	for link, err := range chain.Links(s) {
		if err != nil {
			return nil, err
		}
		if link.Sequence == sequence {
			proof.Hash = link.Hash
			break
		}
	}
	return proof, nil
}

func (t *readTx) oldestSegment() *api.AuditSegment {
	s, _ := t.tables.first(object.KindAuditSegment).(*api.AuditSegment)
	return s
}
