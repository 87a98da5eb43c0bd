package object

import (
	"encoding/binary"
	"slices"

	"github.com/skep-io/skep/api"
)

// Index is a way to find objects of a kind.
type Index uint8

// The indexes. Each kind has IndexID; which of the others it has, [HasIndex] says.
const (
	IndexID Index = iota
	IndexName
	IndexService // tasks and revisions of a service
	IndexNode    // tasks on a node
	IndexSlot    // tasks of one slot of a service
	IndexSecret  // services and tasks that reference a secret
	IndexGrant   // services and tasks that have a grant
	IndexConfig  // services and tasks that reference a config
)

// Indexes is the number of indexes: each is less.
const Indexes = IndexConfig + 1

// String returns the index as errors name it.
func (i Index) String() string {
	names := [Indexes]string{"id", "name", "service", "node", "slot", "secret", "grant", "config"}
	if i < Indexes {
		return names[i]
	}
	return "unknown"
}

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

// SlotKey is the value of IndexSlot for a slot of a service.
func SlotKey(serviceID string, slot uint64) string {
	return string(binary.BigEndian.AppendUint64(append([]byte(serviceID), 0), slot))
}

// AppendValues appends the values that index i has for o to a slice without any, each once. They share the memory of o where they can.
func AppendValues(to []string, o Object, i Index) []string {
	switch i {
	case IndexID:
		return one(to, o.GetId())
	case IndexName:
		return names(to, o)
	case IndexSecret:
		return referenced(to, o, (*api.ContainerSpec).GetSecrets, (*api.SecretReference).GetSecretId)
	case IndexConfig:
		return referenced(to, o, (*api.ContainerSpec).GetConfigs, (*api.SecretReference).GetSecretId)
	case IndexGrant:
		return referenced(to, o, (*api.ContainerSpec).GetGrants, (*api.GrantReference).GetGrantId)
	}
	if revision, ok := o.(*api.ServiceRevision); ok && i == IndexService {
		return one(to, revision.GetServiceId())
	}
	task, ok := o.(*api.Task)
	if !ok {
		return to
	}
	switch i {
	case IndexService:
		return one(to, task.GetServiceId())
	case IndexNode:
		return one(to, task.GetNodeId())
	case IndexSlot:
		if task.GetServiceId() == "" {
			return to
		}
		return append(to, SlotKey(task.GetServiceId(), task.GetSlot()))
	default:
		return to
	}
}

// names appends what an object is found by: a node by its hostname, and by the name that people gave it.
func names(to []string, o Object) []string {
	to = one(to, Name(o))
	if node, ok := o.(*api.Node); ok {
		if name := node.GetSpec().GetAnnotations().GetName(); name != Name(o) {
			to = one(to, name)
		}
	}
	return to
}

func one(to []string, s string) []string {
	if s == "" {
		return to
	}
	return append(to, s)
}

// referenced appends the ids that the container of a service or task references, each once.
func referenced[R any](to []string, o Object, references func(*api.ContainerSpec) []R, idOf func(R) string) []string {
	var spec *api.TaskSpec
	switch o := o.(type) {
	case *api.Service:
		spec = o.GetSpec().GetTask()
	case *api.Task:
		spec = o.GetSpec()
	}
	for _, reference := range references(spec.GetContainer()) {
		if id := idOf(reference); id != "" && !slices.Contains(to, id) {
			to = append(to, id)
		}
	}
	return to
}
