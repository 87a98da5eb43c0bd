package store

import (
	"fmt"
	"iter"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/object"
)

// Object is anything that the store holds. Objects that the store returns are shared by all readers: a caller clones one
// (proto.CloneOf) before it changes it.
type Object = object.Object

// Index is a position in the log. The version of an object is the Index of its last change.
type Index = uint64

// ReadTx is a snapshot of all objects. It stays valid, and the same, for as long as somebody holds it.
type ReadTx interface {
	// Index is the last log entry whose changes the snapshot includes.
	Index() Index

	get(r Ref) (Object, error)
	all(k object.Kind, by By) (iter.Seq[Object], error)
	lastSegment() *api.AuditSegment
	oldestSegment() *api.AuditSegment
	segmentOf(sequence uint64) *api.AuditSegment
}

// Tx is a snapshot with the changes of one transaction on top, which only the transaction sees until it is committed.
// The order of the changes to different objects is kept.
type Tx interface {
	ReadTx

	// Create adds o, whose id must be new and whose meta the store sets. The store owns o from now on: the caller may read
	// but not change it. It returns ErrExists, ErrNameConflict, ErrTooLarge or ErrInvalid.
	Create(o Object) error
	// Update replaces the object with the id of o. The version in o.Meta must be the one in the snapshot, otherwise it
	// returns ErrConflict; or ErrNotFound, ErrNameConflict, ErrTooLarge. The store owns o from now on.
	Update(o Object) error
	// Delete removes an object, or returns ErrNotFound.
	Delete(kind object.Kind, id string) error
	// Require makes the commit depend on o being, at that moment, unchanged since the snapshot. Objects that the
	// transaction changes need no Require.
	Require(o Object) error
	// Full reports whether the transaction has its fair size. It still takes what the limits allow, but a loop that has more to
	// write should go on in another one, so that others share the log with it; see Store.Batch.
	Full() bool
	// Audit adds an event, encoded by package chain, to the audit log when the transaction is applied: at the end, with the next number.
	// A transaction may have nothing but events.
	Audit(event []byte) error
	// RequireKind makes the commit depend on no object of the kind having been created, changed or deleted since the
	// snapshot: for rare writes that depend on the absence of something.
	RequireKind(kind object.Kind)
}

// Get returns the object of type T with the id, or an error that matches ErrNotFound.
func Get[T Object](tx ReadTx, id string) (T, error) {
	var zero T
	o, err := tx.get(Ref{object.KindOf(zero), id})
	if err != nil {
		return zero, err
	}
	return o.(T), nil
}

// TheCluster returns the one object that describes the swarm, or nil while there is none.
func TheCluster(tx ReadTx) (*api.Cluster, error) {
	all, err := List[*api.Cluster](tx)
	if err != nil || len(all) == 0 {
		return nil, err
	}
	return all[0], nil
}

// All goes through the objects of type T that match all of by, ordered by the first of them and then by id; without by, through
// all, ordered by id. It copies nothing, and it may be left at any time.
func All[T Object](tx ReadTx, by ...By) (iter.Seq[T], error) {
	var zero T
	kind := object.KindOf(zero)
	if !kind.Valid() {
		return nil, fmt.Errorf("list: %w: the store has no such kind", ErrInvalid)
	}
	first := ByIDPrefix("")
	if len(by) > 0 {
		first, by = by[0], by[1:]
	}
	for _, b := range by {
		if !object.HasIndex(kind, b.index) {
			return nil, noIndex(kind, b)
		}
	}
	objects, err := tx.all(kind, first)
	if err != nil {
		return nil, err
	}
	return func(yield func(T) bool) {
		for raw := range objects {
			if o := raw.(T); matchAll(by, o) && !yield(o) {
				return
			}
		}
	}, nil
}

// List returns what All goes through.
func List[T Object](tx ReadTx, by ...By) ([]T, error) {
	all, err := All[T](tx, by...)
	if err != nil {
		return nil, err
	}
	return slices.Collect(all), nil
}

// By selects objects by an index of their kind; which kinds have it is said beside each constructor.
type By struct {
	index  object.Index
	key    string
	prefix bool
}

// ByName selects by the name in the spec; nodes by their hostname, too. Tasks have no names.
func ByName(name string) By { return By{index: object.IndexName, key: name} }

// ByNamePrefix selects names that start with prefix. Tasks have no names.
func ByNamePrefix(prefix string) By {
	return By{index: object.IndexName, key: prefix, prefix: true}
}

// ByIDPrefix selects ids that start with prefix, of any kind.
func ByIDPrefix(prefix string) By {
	return By{index: object.IndexID, key: prefix, prefix: true}
}

// ByService selects the tasks of a service, or its revisions.
func ByService(id string) By { return By{index: object.IndexService, key: id} }

// ByNode selects the tasks that are assigned to a node, in whatever state.
func ByNode(id string) By { return By{index: object.IndexNode, key: id} }

// BySlot selects the tasks of one slot of a service.
func BySlot(serviceID string, slot uint64) By {
	return By{index: object.IndexSlot, key: object.SlotKey(serviceID, slot)}
}

// ByReferencedSecret selects the services and tasks whose spec references a secret.
func ByReferencedSecret(id string) By { return By{index: object.IndexSecret, key: id} }

// ByReferencedConfig selects the services and tasks whose spec references a config.
func ByReferencedConfig(id string) By { return By{index: object.IndexConfig, key: id} }

// ByReferencedGrant selects the services and tasks whose spec names a grant.
func ByReferencedGrant(id string) By { return By{index: object.IndexGrant, key: id} }

func (b By) matches(o Object) bool {
	var space [2]string
	for _, value := range object.AppendValues(space[:0], o, b.index) {
		if b.prefix && strings.HasPrefix(value, b.key) || value == b.key {
			return true
		}
	}
	return false
}

func matchAll(by []By, o Object) bool {
	for _, b := range by {
		if !b.matches(o) {
			return false
		}
	}
	return true
}

// readTx implements ReadTx.
type readTx struct {
	tables *tables
	index  Index
}

func (t *readTx) Index() Index { return t.index }

func (t *readTx) get(r Ref) (Object, error) {
	o, err := lookup(t.tables, r)
	return existing(r, o, err)
}

// existing makes an error of an object that is not there.
func existing(r Ref, o Object, err error) (Object, error) {
	if err != nil {
		return nil, err
	}
	if o == nil {
		return nil, fmt.Errorf("%v %w", r, ErrNotFound)
	}
	return o, nil
}

// lookup returns the object or nil.
func lookup(in *tables, r Ref) (Object, error) {
	if !r.Kind.Valid() {
		return nil, fmt.Errorf("%v: %w: the store has no such kind", r, ErrInvalid)
	}
	return in.get(r), nil
}

func (t *readTx) all(k object.Kind, by By) (iter.Seq[Object], error) {
	if !object.HasIndex(k, by.index) {
		return nil, noIndex(k, by)
	}
	return t.tables.all(k, by), nil
}

func noIndex(k object.Kind, by By) error {
	return fmt.Errorf("list %vs by %s: %w: they have no such index", k, by.index, ErrInvalid)
}

// tx implements Tx: the changes so far, over a snapshot. Most transactions change an object or two that they got by id, so the
// changes get into an edit of the tables only once something is looked up by an index.
type tx struct {
	readTx
	view    *view
	changes []*api.Change
	place   map[Ref]int // of the change in changes
	events  [][]byte    // for the audit log
	size    int         // bytes of all changed objects and events
	edit    *edit       // shows the changes, too; or nil
}

func newTx(v *view) *tx {
	return &tx{readTx: readTx{tables: v.tables, index: v.index}, view: v, place: map[Ref]int{}}
}

// pending returns the object that the transaction made of r. known says that it changed r at all; then nil is a deletion.
func (t *tx) pending(r Ref) (o Object, known bool) {
	place, ok := t.place[r]
	if !ok {
		return nil, false
	}
	switch change := t.changes[place]; change.GetAction() {
	case api.ChangeAction_CHANGE_ACTION_CREATE, api.ChangeAction_CHANGE_ACTION_UPDATE:
		return object.Unwrap(change.GetObject()), true
	case api.ChangeAction_CHANGE_ACTION_DELETE:
		return nil, true
	default:
		return nil, false
	}
}

// find returns an object or nil, as the transaction sees it.
func (t *tx) find(r Ref) (Object, error) {
	if o, known := t.pending(r); known {
		return o, nil
	}
	return lookup(t.tables, r)
}

func (t *tx) get(r Ref) (Object, error) {
	o, err := t.find(r)
	return existing(r, o, err)
}

func (t *tx) all(k object.Kind, by By) (iter.Seq[Object], error) {
	t.merge()
	if t.edit == nil || !object.HasIndex(k, by.index) {
		return t.readTx.all(k, by)
	}
	return t.edit.all(k, by), nil
}

// merge makes the tables show the changes so far, and those to come.
func (t *tx) merge() {
	if t.edit != nil || len(t.changes) == 0 {
		return
	}
	t.edit = t.view.tables.edit()
	t.tables = &t.edit.tables
	for _, change := range t.changes {
		t.show(refOf(object.Unwrap(change.GetObject())))
	}
}

// show makes the tables show what became of an object, if they show changes at all.
func (t *tx) show(r Ref) {
	o, known := t.pending(r)
	switch {
	case t.edit == nil || !known:
	case o != nil:
		t.edit.put(o)
	default:
		if old := t.edit.get(r); old != nil {
			t.edit.remove(old)
		}
	}
}

func (t *tx) Create(o Object) error {
	ref := refOf(o)
	if err := checkID(ref); err != nil {
		return err
	}
	if old, err := t.find(ref); err != nil || old != nil {
		return orElse(err, fmt.Errorf("%v %w", ref, ErrExists))
	}
	if _, deleted := t.pending(ref); deleted {
		return fmt.Errorf("%v was deleted by the same transaction: %w", ref, ErrExists)
	}
	object.SetMeta(o, nil)
	size, err := t.check(ref, o)
	if err != nil {
		return err
	}
	t.record(ref, api.ChangeAction_CHANGE_ACTION_CREATE, o, 0, size)
	return nil
}

func (t *tx) Update(o Object) error {
	ref := refOf(o)
	old, err := t.get(ref)
	if err != nil {
		return err
	}
	if _, own := t.place[ref]; old == o && !own {
		return fmt.Errorf("update %v: %w: the object is shared with other readers, change a clone of it", ref, ErrInvalid)
	}
	expected := old.GetMeta().GetVersion()
	if got := o.GetMeta().GetVersion(); got != expected {
		return fmt.Errorf("%v: %w: it has version %d, the update was made from %d", ref, ErrConflict, expected, got)
	}
	size, err := t.check(ref, o)
	if err != nil {
		return err
	}
	t.record(ref, api.ChangeAction_CHANGE_ACTION_UPDATE, o, expected, size)
	return nil
}

func (t *tx) Delete(kind object.Kind, id string) error {
	ref := Ref{kind, id}
	old, err := t.get(ref)
	if err != nil {
		return err
	}
	t.record(ref, api.ChangeAction_CHANGE_ACTION_DELETE, object.New(kind, id), old.GetMeta().GetVersion(), 0)
	return nil
}

func (t *tx) Require(o Object) error {
	ref := refOf(o)
	current, err := t.get(ref)
	if err != nil {
		return err
	}
	if current.GetMeta().GetVersion() != o.GetMeta().GetVersion() {
		return fmt.Errorf("%v: %w", ref, ErrConflict)
	}
	if _, changed := t.place[ref]; changed {
		return nil
	}
	t.record(ref, api.ChangeAction_CHANGE_ACTION_CHECK, object.New(ref.Kind, ref.ID), o.GetMeta().GetVersion(), 0)
	return nil
}

func (t *tx) RequireKind(kind object.Kind) {
	ref := Ref{Kind: kind}
	if _, done := t.place[ref]; !done && kind.Valid() {
		t.note(ref, &api.Change{Action: api.ChangeAction_CHANGE_ACTION_CHECK, Object: object.Wrap(object.New(kind, "")), ExpectedVersion: t.index})
	}
}

func (t *tx) Full() bool { return len(t.changes)+len(t.events) >= fairChanges || t.size >= fairSize }

// check returns the size of o if it is one that the store may hold.
func (t *tx) check(ref Ref, o Object) (size int, err error) {
	if ref.Kind == object.KindAuditSegment {
		return 0, fmt.Errorf("%v: %w: the audit log is written by events only", ref, ErrInvalid)
	}
	if size = proto.Size(o); size > MaxObjectSize {
		return 0, &LimitError{What: ref.String(), Size: size, Limit: MaxObjectSize}
	}
	if !ref.Kind.UniqueNames() || object.Name(o) == "" {
		return size, nil
	}
	t.merge()
	if holder := nameHolder(t.tables, o); holder != nil && holder.GetId() != ref.ID {
		return 0, fmt.Errorf("%v %q: %w", ref.Kind, object.Name(o), ErrNameConflict)
	}
	return size, nil
}

// record adds a change of size bytes, or folds it into the earlier change of the same object.
func (t *tx) record(ref Ref, action api.ChangeAction, o Object, expected Index, size int) {
	change := &api.Change{Action: action, Object: object.Wrap(o), ExpectedVersion: expected}
	t.size += size
	place, ok := t.place[ref]
	if !ok {
		t.note(ref, change)
		t.show(ref)
		return
	}
	earlier := t.changes[place]
	change.ExpectedVersion = earlier.GetExpectedVersion()
	created := earlier.GetAction() == api.ChangeAction_CHANGE_ACTION_CREATE
	if created && action != api.ChangeAction_CHANGE_ACTION_DELETE {
		change.Action = api.ChangeAction_CHANGE_ACTION_CREATE
	}
	t.changes[place] = change
	t.show(ref)
	if created && action == api.ChangeAction_CHANGE_ACTION_DELETE {
		t.forget(ref)
	}
}

func (t *tx) note(ref Ref, change *api.Change) {
	t.place[ref] = len(t.changes)
	t.changes = append(t.changes, change)
}

// forget drops the change of an object that was created and deleted: what remains is that the id was free.
func (t *tx) forget(ref Ref) {
	place := t.place[ref]
	t.changes = append(t.changes[:place], t.changes[place+1:]...)
	delete(t.place, ref)
	for r, p := range t.place {
		if p > place {
			t.place[r] = p - 1
		}
	}
}

// nameHolder returns an object of o's kind that has its name, preferably another one, or nil when names may repeat.
func nameHolder(in *tables, o Object) Object {
	kind, name := object.KindOf(o), object.Name(o)
	if !kind.UniqueNames() || name == "" {
		return nil
	}
	var holder Object
	for other := range in.all(kind, ByName(name)) {
		holder = other
		if holder.GetId() != o.GetId() {
			break
		}
	}
	return holder
}

func checkID(r Ref) error {
	if !r.Kind.Valid() {
		return fmt.Errorf("create: %w: the store has no such kind of object", ErrInvalid)
	}
	if r.ID == "" || len(r.ID) > maxID || strings.IndexByte(r.ID, 0) >= 0 {
		return fmt.Errorf("create %v: %w: its id must have 1 to %d characters", r.Kind, ErrInvalid, maxID)
	}
	return nil
}

func orElse(err, otherwise error) error {
	if err != nil {
		return err
	}
	return otherwise
}
