package object

import (
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/go-memdb"

	"github.com/skep-io/skep/api"
)

// Index names a way to find objects of a kind.
type Index string

// The indexes. Each kind has IndexID; which of the others it has, [HasIndex] says.
const (
	IndexID      Index = "id"
	IndexName    Index = "name"
	IndexService Index = "service" // tasks and revisions of a service
	IndexNode    Index = "node"    // tasks on a node
	IndexSlot    Index = "slot"    // tasks of one slot of a service
	IndexSecret  Index = "secret"  // services and tasks that reference a secret
	IndexGrant   Index = "grant"   // services and tasks that have a grant
	IndexConfig  Index = "config"  // services and tasks that reference a config
)

// HasIndex reports whether objects of kind k can be found by index i.
func HasIndex(k Kind, i Index) bool {
	switch i {
	case IndexID:
		return k.Valid()
	case IndexName:
		return k.Valid() && k != KindTask && k != KindJoinGrant && k != KindAuditSegment && k != KindServiceRevision
	case IndexService:
		return k == KindTask || k == KindServiceRevision
	case IndexNode, IndexSlot:
		return k == KindTask
	case IndexSecret, IndexGrant, IndexConfig:
		return k == KindService || k == KindTask
	default:
		return false
	}
}

// Schema returns one memdb table per kind, named by Kind.String, with its indexes.
func Schema() *memdb.DBSchema {
	schema := &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{}}
	for _, k := range Kinds() {
		table := &memdb.TableSchema{Name: k.String(), Indexes: map[string]*memdb.IndexSchema{}}
		for _, i := range []Index{IndexID, IndexName, IndexService, IndexNode, IndexSlot, IndexSecret, IndexGrant, IndexConfig} {
			if !HasIndex(k, i) {
				continue
			}
			// Names are not unique for memdb, so that a transaction may swap two of them; the state machine checks them.
			table.Indexes[string(i)] = &memdb.IndexSchema{
				Name: string(i), Unique: i == IndexID, AllowMissing: i != IndexID, Indexer: indexer(i),
			}
		}
		schema.Tables[table.Name] = table
	}
	return schema
}

// indexer is a memdb.MultiIndexer for one Index; IndexID, which memdb wants to be single, is idIndexer.
type multiIndexer Index

type idIndexer struct{}

func indexer(i Index) memdb.Indexer {
	if i == IndexID {
		return idIndexer{}
	}
	return multiIndexer(i)
}

// FromObject returns the index value of an object.
func (idIndexer) FromObject(raw any) (bool, []byte, error) {
	o, ok := raw.(Object)
	if !ok || o.GetId() == "" {
		return false, nil, fmt.Errorf("%T has no id", raw)
	}
	return true, Key(o.GetId()), nil
}

// FromArgs returns the index value of a key made by Key.
func (idIndexer) FromArgs(args ...any) ([]byte, error) { return keyArg(args) }

// PrefixFromArgs returns a value that all matching index values start with.
func (idIndexer) PrefixFromArgs(args ...any) ([]byte, error) { return keyArg(args) }

// FromObject returns the index values of an object.
func (i multiIndexer) FromObject(raw any) (bool, [][]byte, error) {
	o, ok := raw.(Object)
	if !ok {
		return false, nil, fmt.Errorf("%T is not an object", raw)
	}
	values := Values(o, Index(i))
	return len(values) > 0, values, nil
}

// FromArgs returns the index value of a key made by Key or SlotKey.
func (multiIndexer) FromArgs(args ...any) ([]byte, error) { return keyArg(args) }

// PrefixFromArgs returns a value that all matching index values start with.
func (multiIndexer) PrefixFromArgs(args ...any) ([]byte, error) { return keyArg(args) }

func keyArg(args []any) ([]byte, error) {
	if len(args) == 1 {
		if key, ok := args[0].([]byte); ok {
			return key, nil
		}
	}
	return nil, fmt.Errorf("an index takes one key, got %d arguments", len(args))
}

// Key is the index value of s. The byte 0 at its end keeps "web" from matching "web2".
func Key(s string) []byte { return append([]byte(s), 0) }

// SlotKey is the value of IndexSlot for a slot of a service.
func SlotKey(serviceID string, slot uint64) []byte {
	return binary.BigEndian.AppendUint64(Key(serviceID), slot)
}

// Values returns the values that index i has for o, each once.
func Values(o Object, i Index) [][]byte {
	switch i {
	case IndexID:
		return one(o.GetId())
	case IndexName:
		return names(o)
	case IndexSecret:
		return referenced(o, (*api.ContainerSpec).GetSecrets, (*api.SecretReference).GetSecretId)
	case IndexConfig:
		return referenced(o, (*api.ContainerSpec).GetConfigs, (*api.SecretReference).GetSecretId)
	case IndexGrant:
		return referenced(o, (*api.ContainerSpec).GetGrants, (*api.GrantReference).GetGrantId)
	}
	if revision, ok := o.(*api.ServiceRevision); ok && i == IndexService {
		return one(revision.GetServiceId())
	}
	task, ok := o.(*api.Task)
	if !ok {
		return nil
	}
	switch i {
	case IndexService:
		return one(task.GetServiceId())
	case IndexNode:
		return one(task.GetNodeId())
	case IndexSlot:
		if task.GetServiceId() == "" {
			return nil
		}
		return [][]byte{SlotKey(task.GetServiceId(), task.GetSlot())}
	default:
		return nil
	}
}

// names returns what an object is found by: a node by its hostname, and by the name that people gave it.
func names(o Object) [][]byte {
	values := one(Name(o))
	if node, ok := o.(*api.Node); ok {
		if name := node.GetSpec().GetAnnotations().GetName(); name != Name(o) {
			values = append(values, one(name)...)
		}
	}
	return values
}

func one(s string) [][]byte {
	if s == "" {
		return nil
	}
	return [][]byte{Key(s)}
}

// referenced returns the ids that the container of a service or task references, each once.
func referenced[R any](o Object, references func(*api.ContainerSpec) []R, idOf func(R) string) [][]byte {
	var spec *api.TaskSpec
	switch o := o.(type) {
	case *api.Service:
		spec = o.GetSpec().GetTask()
	case *api.Task:
		spec = o.GetSpec()
	}
	var values [][]byte
	seen := map[string]bool{}
	for _, reference := range references(spec.GetContainer()) {
		id := idOf(reference)
		if id == "" || seen[id] {
			continue
		}
		seen[id] = true
		values = append(values, Key(id))
	}
	return values
}
