package store

import (
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/google/btree"

	"github.com/skep-io/skep/store/object"
)

// treeDegree is half of what a node of a tree holds at most. A change copies a node per level, so that small nodes make it cheap; large
// ones make trees flat.
const treeDegree = 16

// entry is an object under one value of an index.
type entry struct {
	key string
	o   Object // or nil, in what is looked for
}

// byKey orders the entries of an index with one object at most for each value: that of ids.
func byKey(a, b entry) bool { return a.key < b.key }

// byKeyAndID orders those of the others. What is looked for comes before all with its value.
func byKeyAndID(a, b entry) bool {
	if a.key != b.key {
		return a.key < b.key
	}
	if a.o == nil || b.o == nil {
		return b.o != nil
	}
	return a.o.GetId() < b.o.GetId()
}

// tree is one index of a kind.
type tree struct {
	of *btree.BTreeG[entry]

	forks sync.Mutex // held while it is cloned, which readers may go on meanwhile
}

func (t *tree) fork() *tree {
	t.forks.Lock()
	defer t.forks.Unlock()
	return &tree{of: t.of.Clone()}
}

// tables are all objects at some moment. They never change: an edit makes others of them, which share what it left alone.
type tables struct {
	trees [object.MaxKind + 1][object.Indexes]*tree // nil where a kind has no such index
}

func newTables() *tables {
	t := &tables{}
	for _, kind := range object.Kinds() {
		for i := range object.Indexes {
			switch {
			case i == object.IndexID:
				t.trees[kind][i] = &tree{of: btree.NewG(treeDegree, byKey)}
			case object.HasIndex(kind, i):
				t.trees[kind][i] = &tree{of: btree.NewG(treeDegree, byKeyAndID)}
			}
		}
	}
	return t
}

func (t *tables) ids(kind object.Kind) *btree.BTreeG[entry] { return t.trees[kind][object.IndexID].of }

// get returns an object of a kind that there is, or nil.
func (t *tables) get(r Ref) Object {
	e, _ := t.ids(r.Kind).Get(entry{key: r.ID})
	return e.o
}

// all goes through the objects that by selects, ordered by its index and then by id. The kind must have the index.
func (t *tables) all(kind object.Kind, by By) iter.Seq[Object] {
	of := t.trees[kind][by.index].of
	return func(yield func(Object) bool) {
		of.AscendGreaterOrEqual(entry{key: by.key}, func(e entry) bool {
			return (e.key == by.key || by.prefix && strings.HasPrefix(e.key, by.key)) && yield(e.o)
		})
	}
}

// first and last return the object with the lowest and the highest id, or nil.
func (t *tables) first(kind object.Kind) Object {
	e, _ := t.ids(kind).Min()
	return e.o
}

func (t *tables) last(kind object.Kind) Object {
	e, _ := t.ids(kind).Max()
	return e.o
}

// upTo returns the object with the highest id that is not after id, or nil.
func (t *tables) upTo(kind object.Kind, id string) Object {
	var found Object
	t.ids(kind).DescendLessOrEqual(entry{key: id}, func(e entry) bool {
		found = e.o
		return false
	})
	return found
}

// edit is a change of tables under way. It is for one goroutine; what it was made from stays as it is.
type edit struct {
	tables                                          // with the changes so far
	own    [object.MaxKind + 1][object.Indexes]bool // trees that nothing else refers to
}

func (t *tables) edit() *edit { return &edit{tables: *t} }

// done returns the tables with all changes. The edit may go on, to make others.
func (e *edit) done() *tables {
	clear(e.own[:])
	return new(e.tables)
}

// all is that of tables, for who may change what it goes through meanwhile: that is not seen.
func (e *edit) all(kind object.Kind, by By) iter.Seq[Object] {
	e.own[kind][by.index] = false
	return e.tables.all(kind, by)
}

func (e *edit) tree(kind object.Kind, i object.Index) *btree.BTreeG[entry] {
	if !e.own[kind][i] {
		e.trees[kind][i], e.own[kind][i] = e.trees[kind][i].fork(), true
	}
	return e.trees[kind][i].of
}

// put adds an object, or replaces the one with its id.
func (e *edit) put(o Object) {
	ref := refOf(o)
	old := e.get(ref)
	for i := range object.Indexes {
		if e.trees[ref.Kind][i] == nil {
			continue
		}
		var space [2]string
		keys := object.AppendValues(space[:0], o, i)
		if old != nil {
			e.drop(old, i, keys)
		}
		for _, key := range keys {
			e.tree(ref.Kind, i).ReplaceOrInsert(entry{key, o})
		}
	}
}

// drop removes the entries of an object from an index, but for those with some values.
func (e *edit) drop(old Object, i object.Index, but []string) {
	var space [2]string
	for _, key := range object.AppendValues(space[:0], old, i) {
		if !slices.Contains(but, key) {
			e.tree(object.KindOf(old), i).Delete(entry{key, old})
		}
	}
}

// remove removes an object that is there.
func (e *edit) remove(old Object) {
	for i := range object.Indexes {
		if e.trees[object.KindOf(old)][i] != nil {
			e.drop(old, i, nil)
		}
	}
}
