package store

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/invariant"
	"github.com/skep-io/skep/store/object"
)

// errRefused is the result of a transaction whose expectations do not hold any more.
var errRefused = errors.New("refused")

// view is all that readers see: the state after one log entry. Immutable.
type view struct {
	tables       *tables
	index        Index
	kindVersions [object.MaxKind + 1]Index
}

func (v *view) read() ReadTx { return &readTx{tables: v.tables, index: v.index} }

// machine is the replicated state machine: the same entries in the same order give the same state on every manager. It
// has no clock, no randomness and no I/O. All methods but view and repeated belong to one goroutine at a time.
type machine struct {
	clusterID    string
	tables       *tables
	index        Index
	kindVersions [object.MaxKind + 1]Index
	requests     *requests
	members      members
	current      atomic.Pointer[view] // never nil
}

// result is what became of one transaction of an entry.
type result struct {
	requestID string
	index     Index
	err       error // nil, errRefused, or *DuplicateError
}

func newMachine(clusterID string) *machine {
	m := &machine{clusterID: clusterID, tables: newTables(), requests: newRequests(), members: newMembers()}
	m.publish()
	return m
}

func (m *machine) view() *view { return m.current.Load() }

func (m *machine) publish() {
	m.current.Store(&view{tables: m.tables, index: m.index, kindVersions: m.kindVersions})
}

// skip notes an entry that changes no object.
func (m *machine) skip(index Index) {
	m.index = index
	m.publish()
}

// apply applies one entry and returns what became of its transactions, and the changes for watchers. An error means that
// the entry cannot be what a leader proposed: the manager must stop.
func (m *machine) apply(index Index, data []byte) ([]result, Batch, error) {
	if index <= m.index {
		return nil, Batch{}, invariant.Violated("I3", "entry %d applied after %d", index, m.index)
	}
	var record api.LogRecord
	if err := proto.Unmarshal(data, &record); err != nil {
		return nil, Batch{}, fmt.Errorf("decode entry %d: %w", index, err)
	}
	edit := m.tables.edit()
	batch := Batch{Index: index}
	results := make([]result, 0, len(record.GetTransactions()))
	m.index = index
	for _, t := range record.GetTransactions() {
		changes, err := m.transact(edit, t)
		if err != nil && !errors.Is(err, errRefused) && !errors.Is(err, ErrDuplicate) {
			return nil, Batch{}, fmt.Errorf("apply entry %d: %w", index, err)
		}
		results = append(results, result{requestID: t.GetRequestId(), index: index, err: err})
		batch.Changes = append(batch.Changes, changes...)
	}
	m.tables = edit.done()
	m.publish()
	return results, batch, nil
}

// transact applies one transaction, whole or not at all.
func (m *machine) transact(edit *edit, t *api.Transaction) ([]Change, error) {
	if earlier := m.requests.find(t.GetRequestId()); earlier != nil {
		return nil, earlier
	}
	olds, err := m.check(&edit.tables, t)
	if err != nil {
		return nil, err
	}
	var changes []Change
	var created []Ref
	for i, c := range t.GetChanges() {
		change, err := m.change(edit, t, c, olds[i])
		if err != nil {
			return nil, err
		}
		if change.Action == 0 {
			continue
		}
		changes = append(changes, change)
		if change.Action == ActionCreate {
			created = append(created, refOf(change.Object))
		}
	}
	recorded := m.record(edit, t)
	m.requests.add(&DuplicateError{RequestID: t.GetRequestId(), Index: m.index, Created: created})
	return append(changes, recorded...), nil
}

// check returns what is there of the objects that t changes, or nil for those that are not; and errRefused when an expectation of t
// does not hold.
func (m *machine) check(in *tables, t *api.Transaction) ([]Object, error) {
	olds := make([]Object, len(t.GetChanges()))
	var names claims
	var seen map[Ref]bool
	if len(olds) > 1 {
		seen = map[Ref]bool{}
	}
	for i, c := range t.GetChanges() {
		o := object.Unwrap(c.GetObject())
		if o == nil {
			return nil, fmt.Errorf("a change of an unknown kind, made by a newer version: %w", ErrInvalid)
		}
		ref := refOf(o)
		if seen[ref] {
			return nil, fmt.Errorf("%v is changed twice: %w", ref, errRefused)
		}
		if seen != nil {
			seen[ref] = true
		}
		if ref.ID == "" {
			if c.GetAction() != api.ChangeAction_CHANGE_ACTION_CHECK || m.kindVersions[ref.Kind] > c.GetExpectedVersion() {
				return nil, fmt.Errorf("%vs changed: %w", ref.Kind, errRefused)
			}
			continue
		}
		old, err := lookup(in, ref)
		if err != nil {
			return nil, err
		}
		olds[i] = old
		exists := old != nil
		if wanted := c.GetAction() != api.ChangeAction_CHANGE_ACTION_CREATE; exists != wanted {
			return nil, fmt.Errorf("%v exists: %v: %w", ref, exists, errRefused)
		}
		if exists && old.GetMeta().GetVersion() != c.GetExpectedVersion() {
			return nil, fmt.Errorf("%v has version %d: %w", ref, old.GetMeta().GetVersion(), errRefused)
		}
		names.note(c.GetAction(), old, o)
	}
	if err := checkSegments(in, t); err != nil {
		return nil, err
	}
	return olds, names.check(in)
}

// change applies one change that check let pass, to an object that is there as old, or nil.
func (m *machine) change(edit *edit, t *api.Transaction, c *api.Change, old Object) (Change, error) {
	o := object.Unwrap(c.GetObject())
	ref := refOf(o)
	change := Change{Object: o, Old: old, At: t.GetProposedAt().AsTime()}
	created := t.GetProposedAt()
	switch c.GetAction() {
	case api.ChangeAction_CHANGE_ACTION_CHECK:
		return Change{}, nil
	case api.ChangeAction_CHANGE_ACTION_DELETE:
		change.Action, change.Object = ActionDelete, old
		m.kindVersions[ref.Kind] = m.index
		edit.remove(old)
		return change, nil
	case api.ChangeAction_CHANGE_ACTION_CREATE:
		change.Action = ActionCreate
	case api.ChangeAction_CHANGE_ACTION_UPDATE:
		change.Action, created = ActionUpdate, old.GetMeta().GetCreatedAt()
	default:
		return Change{}, fmt.Errorf("change %v: %w action %v, made by a newer version", ref, ErrInvalid, c.GetAction())
	}
	object.SetMeta(o, &api.Meta{Version: m.index, CreatedAt: created, UpdatedAt: t.GetProposedAt()})
	m.kindVersions[ref.Kind] = m.index
	share(&edit.tables, o, old)
	edit.put(o)
	return change, nil
}

// claims are the unique names that a transaction takes and frees, so that it may swap them. The zero value has none.
type claims struct {
	taken []Object
	freed []Ref // objects that lose the name they have, or go
}

func (n *claims) note(action api.ChangeAction, old, o Object) {
	ref := refOf(o)
	if action == api.ChangeAction_CHANGE_ACTION_CHECK || !ref.Kind.UniqueNames() {
		return
	}
	if old != nil && (action == api.ChangeAction_CHANGE_ACTION_DELETE || object.Name(old) != object.Name(o)) {
		n.freed = append(n.freed, ref)
	}
	if action != api.ChangeAction_CHANGE_ACTION_DELETE && object.Name(o) != "" {
		n.taken = append(n.taken, o)
	}
}

// twice reports whether two objects take one name.
func (n *claims) twice() bool {
	if len(n.taken) < 2 {
		return false
	}
	names := map[string]bool{}
	for _, o := range n.taken {
		key := object.KindOf(o).String() + "\x00" + object.Name(o)
		if names[key] {
			return true
		}
		names[key] = true
	}
	return false
}

func (n *claims) check(in *tables) error {
	if n.twice() {
		return fmt.Errorf("a name is taken twice: %w", errRefused)
	}
	for _, o := range n.taken {
		holder := nameHolder(in, o)
		if holder != nil && holder.GetId() != o.GetId() && !slices.Contains(n.freed, refOf(holder)) {
			return fmt.Errorf("name of %v: %w", refOf(o), errRefused)
		}
	}
	return nil
}
