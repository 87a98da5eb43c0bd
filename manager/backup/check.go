package backup

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protopath"
	"google.golang.org/protobuf/reflect/protorange"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// Check restores a state into a scratch store, which shares its objects, and returns all that is wrong with it, in words that name
// the kind and the id. Nothing is wrong with a reference to what may go first in a running swarm: a task's service (its tasks go
// later), its secrets (a newer spec may do without them) and its node, and the node of a member.
func Check(header *api.BackupHeader, state *api.StoreSnapshot) []string {
	c := &checker{state: state, index: state.GetIndex(), objects: map[object.Kind]map[string]object.Object{}}
	if state.GetClusterId() != header.GetClusterId() || state.GetIndex() != header.GetIndex() {
		c.add("the state is of cluster %s at index %d, the header says cluster %s at index %d",
			state.GetClusterId(), state.GetIndex(), header.GetClusterId(), header.GetIndex())
	}
	for i, stored := range state.GetObjects() {
		c.object(i, object.Unwrap(stored))
	}
	c.counts(header)
	c.scratch()
	c.log()
	c.members()
	c.audit()
	for _, id := range slices.Sorted(maps.Keys(c.objects[object.KindCluster])) {
		c.cluster(c.objects[object.KindCluster][id].(*api.Cluster))
	}
	if n := len(c.objects[object.KindCluster]); n != 1 {
		c.add("there are %d cluster objects instead of one", n)
	}
	c.references()
	return c.problems
}

// checker collects what is wrong with a state.
type checker struct {
	state    *api.StoreSnapshot
	index    store.Index
	objects  map[object.Kind]map[string]object.Object
	names    map[string]string // id by kind and name
	newest   [object.MaxKind + 1]store.Index
	problems []string
}

func (c *checker) add(format string, args ...any) {
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

// object checks one object by itself; o is nil for one that this version does not know.
func (c *checker) object(position int, o object.Object) {
	if o == nil {
		c.add("object %d is of a kind that this version does not know, or empty", position)
		return
	}
	kind, id := object.KindOf(o), o.GetId()
	if c.objects[kind] == nil {
		c.objects[kind] = map[string]object.Object{}
	}
	if !object.ValidID(id) {
		c.add("%v %q: its id is not one", kind, id)
	}
	if c.objects[kind][id] != nil {
		c.add("%v %s: it is there twice", kind, id)
	}
	c.objects[kind][id] = o
	c.name(kind, o)
	version := o.GetMeta().GetVersion()
	if version == 0 || version > c.index {
		c.add("%v %s: its version is %d, and the backup is of index %d", kind, id, version, c.index)
	}
	c.newest[kind] = max(c.newest[kind], version)
	if size := proto.Size(o); size > store.MaxObjectSize {
		c.add("%v %s: it has %d bytes, and %d are the most", kind, id, size, store.MaxObjectSize)
	}
	if hasUnknown(o) {
		c.add("%v %s: it has fields that this version does not know", kind, id)
	}
}

// name checks that a name is there where it must be, and is the only one.
func (c *checker) name(kind object.Kind, o object.Object) {
	name := object.Name(o)
	if !kind.UniqueNames() {
		return
	}
	if name == "" {
		c.add("%v %s: it has no name", kind, o.GetId())
		return
	}
	if c.names == nil {
		c.names = map[string]string{}
	}
	key := kind.String() + "\x00" + name
	if other, taken := c.names[key]; taken && other != o.GetId() {
		c.add("%v %s: %v %s has its name %q, too", kind, o.GetId(), kind, other, name)
	}
	c.names[key] = o.GetId()
}

// hasUnknown reports whether a message, or one below it, has fields that this version does not know.
func hasUnknown(m proto.Message) bool {
	found := errors.New("found")
	return protorange.Range(m.ProtoReflect(), func(p protopath.Values) error {
		if message, ok := p.Index(-1).Value.Interface().(protoreflect.Message); ok && len(message.GetUnknown()) > 0 {
			return found
		}
		return nil
	}) != nil
}

// counts checks that there is as much as the header says.
func (c *checker) counts(header *api.BackupHeader) {
	said := map[uint32]uint64{}
	for _, n := range header.GetCounts() {
		said[n.GetKind()] = n.GetObjects()
	}
	for _, n := range count(c.state) {
		if got, want := uint64(len(c.objects[object.Kind(n.GetKind())])), said[n.GetKind()]; got != want {
			c.add("there are %d %vs, and the header says %d", got, object.Kind(n.GetKind()), want)
		}
		delete(said, n.GetKind())
	}
	for _, kind := range slices.Sorted(maps.Keys(said)) {
		c.add("the header says %d objects of kind %d, which this version does not know", said[kind], kind)
	}
}

// scratch checks that a store takes the state, and shows all of it.
func (c *checker) scratch() {
	scratch, err := store.NewLocal(c.state.GetClusterId())
	if err == nil {
		err = scratch.Restore(shallow(c.state)) // the store owns what it gets
	}
	if err != nil {
		c.add("a store does not take it: %v", err)
		return
	}
	err = scratch.View(func(tx store.ReadTx) error {
		for _, kind := range object.Kinds() {
			n, err := listed(tx, kind)
			if err != nil {
				return err
			}
			if want := len(c.objects[kind]); n != want {
				c.add("a store that took it shows %d %vs of %d", n, kind, want)
			}
		}
		return nil
	})
	if err != nil {
		c.add("a store that took it can't be read: %v", err)
	}
}

// listed returns how many objects of a kind a store shows.
func listed(tx store.ReadTx, kind object.Kind) (int, error) {
	switch kind {
	case object.KindCluster:
		return length[*api.Cluster](tx)
	case object.KindNode:
		return length[*api.Node](tx)
	case object.KindService:
		return length[*api.Service](tx)
	case object.KindTask:
		return length[*api.Task](tx)
	case object.KindSecret:
		return length[*api.Secret](tx)
	case object.KindJoinGrant:
		return length[*api.JoinGrant](tx)
	case object.KindUser:
		return length[*api.User](tx)
	case object.KindAuditSegment:
		return length[*api.AuditSegment](tx)
	case object.KindGrant:
		return length[*api.Grant](tx)
	case object.KindServiceRevision:
		return length[*api.ServiceRevision](tx)
	case object.KindConfig:
		return length[*api.Config](tx)
	case object.KindOldValue:
		return length[*api.OldValue](tx)
	default:
		return 0, fmt.Errorf("%v: %w", kind, store.ErrInvalid)
	}
}

func length[T store.Object](tx store.ReadTx) (int, error) {
	all, err := store.List[T](tx)
	return len(all), err
}
