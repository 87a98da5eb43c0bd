package object

import (
	"fmt"
	"reflect"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// Object is anything that the store holds. Every kind also has an assignable id and meta, see [SetMeta].
type Object interface {
	proto.Message
	GetId() string
	GetMeta() *api.Meta
}

// Kind says which message of api an object is. Its value is the number of the message's field in api.StoredObject, and part
// of what is on disk: it never changes.
type Kind uint32

// The kinds of objects.
const (
	KindCluster         Kind = 1
	KindNode            Kind = 2
	KindService         Kind = 3
	KindTask            Kind = 4
	KindSecret          Kind = 5
	KindJoinGrant       Kind = 6
	KindUser            Kind = 7
	KindAuditSegment    Kind = 8
	KindGrant           Kind = 9
	KindConfig          Kind = 10
	KindOldValue        Kind = 11
	KindServiceRevision Kind = 12
)

// MaxKind is the highest Kind in use.
const MaxKind = KindServiceRevision

// Kinds returns all kinds, in ascending order.
func Kinds() []Kind {
	return []Kind{KindCluster, KindNode, KindService, KindTask, KindSecret, KindJoinGrant, KindUser, KindAuditSegment, KindGrant, KindConfig, KindOldValue, KindServiceRevision}
}

// String returns the kind in lower case, as errors name it: "service", "join grant".
func (k Kind) String() string {
	switch k {
	case KindCluster:
		return "cluster"
	case KindNode:
		return "node"
	case KindService:
		return "service"
	case KindTask:
		return "task"
	case KindSecret:
		return "secret"
	case KindJoinGrant:
		return "join grant"
	case KindUser:
		return "user"
	case KindAuditSegment:
		return "audit segment"
	case KindGrant:
		return "grant"
	case KindConfig:
		return "config"
	case KindOldValue:
		return "old value"
	case KindServiceRevision:
		return "service revision"
	default:
		return fmt.Sprintf("kind(%d)", uint32(k))
	}
}

// Valid reports whether k is a kind that this version knows.
func (k Kind) Valid() bool { return k >= KindCluster && k <= MaxKind }

// Protocol is what a manager must understand, see api.Member, before it can be given an object of kind k.
func (k Kind) Protocol() uint32 {
	if k > KindSecret {
		return 2
	}
	return 0
}

// UniqueNames reports whether two objects of kind k may not share a name. Hostnames of nodes may repeat; tasks, join
// grants, audit segments and service revisions have no name.
func (k Kind) UniqueNames() bool {
	return k == KindCluster || k == KindService || k == KindSecret || k == KindUser || k == KindGrant || k == KindConfig
}

// KindOf returns the kind of o, which may be a typed nil, or 0 when o is not a stored object.
func KindOf(o Object) Kind {
	switch o.(type) {
	case *api.Cluster:
		return KindCluster
	case *api.Node:
		return KindNode
	case *api.Service:
		return KindService
	case *api.Task:
		return KindTask
	case *api.Secret:
		return KindSecret
	case *api.JoinGrant:
		return KindJoinGrant
	case *api.User:
		return KindUser
	case *api.AuditSegment:
		return KindAuditSegment
	case *api.Grant:
		return KindGrant
	case *api.Config:
		return KindConfig
	case *api.OldValue:
		return KindOldValue
	case *api.ServiceRevision:
		return KindServiceRevision
	default:
		return 0
	}
}

// Name returns what [store.ByName] finds o by: the name in its spec, for a node its hostname, for a task nothing, for an old
// value the id of its secret or config.
func Name(o Object) string {
	switch o := o.(type) {
	case *api.Cluster:
		return o.GetSpec().GetAnnotations().GetName()
	case *api.Node:
		return o.GetDescription().GetHostname()
	case *api.Service:
		return o.GetSpec().GetAnnotations().GetName()
	case *api.Secret:
		return o.GetSpec().GetAnnotations().GetName()
	case *api.User:
		return o.GetSpec().GetAnnotations().GetName()
	case *api.Grant:
		return o.GetSpec().GetAnnotations().GetName()
	case *api.Config:
		return o.GetSpec().GetAnnotations().GetName()
	case *api.OldValue:
		return o.GetOwnerId()
	default:
		return ""
	}
}

// SetMeta replaces the meta of o, which must be a stored object that nobody else can see yet.
func SetMeta(o Object, meta *api.Meta) {
	switch o := o.(type) {
	case *api.Cluster:
		o.Meta = meta
	case *api.Node:
		o.Meta = meta
	case *api.Service:
		o.Meta = meta
	case *api.Task:
		o.Meta = meta
	case *api.Secret:
		o.Meta = meta
	case *api.JoinGrant:
		o.Meta = meta
	case *api.User:
		o.Meta = meta
	case *api.AuditSegment:
		o.Meta = meta
	case *api.Grant:
		o.Meta = meta
	case *api.Config:
		o.Meta = meta
	case *api.OldValue:
		o.Meta = meta
	case *api.ServiceRevision:
		o.Meta = meta
	}
}

// New returns an empty object of kind k with the id, or nil for an unknown kind.
func New(k Kind, id string) Object {
	switch k {
	case KindCluster:
		return &api.Cluster{Id: id}
	case KindNode:
		return &api.Node{Id: id}
	case KindService:
		return &api.Service{Id: id}
	case KindTask:
		return &api.Task{Id: id}
	case KindSecret:
		return &api.Secret{Id: id}
	case KindJoinGrant:
		return &api.JoinGrant{Id: id}
	case KindUser:
		return &api.User{Id: id}
	case KindAuditSegment:
		return &api.AuditSegment{Id: id}
	case KindGrant:
		return &api.Grant{Id: id}
	case KindConfig:
		return &api.Config{Id: id}
	case KindOldValue:
		return &api.OldValue{Id: id}
	case KindServiceRevision:
		return &api.ServiceRevision{Id: id}
	default:
		return nil
	}
}

// Wrap puts o into the message that the log and snapshots carry, without copying it. It returns nil for a foreign type.
func Wrap(o Object) *api.StoredObject {
	switch o := o.(type) {
	case *api.Cluster:
		return &api.StoredObject{Object: &api.StoredObject_Cluster{Cluster: o}}
	case *api.Node:
		return &api.StoredObject{Object: &api.StoredObject_Node{Node: o}}
	case *api.Service:
		return &api.StoredObject{Object: &api.StoredObject_Service{Service: o}}
	case *api.Task:
		return &api.StoredObject{Object: &api.StoredObject_Task{Task: o}}
	case *api.Secret:
		return &api.StoredObject{Object: &api.StoredObject_Secret{Secret: o}}
	case *api.JoinGrant:
		return &api.StoredObject{Object: &api.StoredObject_JoinGrant{JoinGrant: o}}
	case *api.User:
		return &api.StoredObject{Object: &api.StoredObject_User{User: o}}
	case *api.AuditSegment:
		return &api.StoredObject{Object: &api.StoredObject_AuditSegment{AuditSegment: o}}
	case *api.Grant:
		return &api.StoredObject{Object: &api.StoredObject_Grant{Grant: o}}
	case *api.Config:
		return &api.StoredObject{Object: &api.StoredObject_Config{Config: o}}
	case *api.OldValue:
		return &api.StoredObject{Object: &api.StoredObject_OldValue{OldValue: o}}
	case *api.ServiceRevision:
		return &api.StoredObject{Object: &api.StoredObject_ServiceRevision{ServiceRevision: o}}
	default:
		return nil
	}
}

// Unwrap returns the object in s, or nil when there is none or none that this version knows.
func Unwrap(s *api.StoredObject) Object {
	var o Object
	switch w := s.GetObject().(type) {
	case *api.StoredObject_Cluster:
		o = w.Cluster
	case *api.StoredObject_Node:
		o = w.Node
	case *api.StoredObject_Service:
		o = w.Service
	case *api.StoredObject_Task:
		o = w.Task
	case *api.StoredObject_Secret:
		o = w.Secret
	case *api.StoredObject_JoinGrant:
		o = w.JoinGrant
	case *api.StoredObject_User:
		o = w.User
	case *api.StoredObject_AuditSegment:
		o = w.AuditSegment
	case *api.StoredObject_Grant:
		o = w.Grant
	case *api.StoredObject_Config:
		o = w.Config
	case *api.StoredObject_OldValue:
		o = w.OldValue
	case *api.StoredObject_ServiceRevision:
		o = w.ServiceRevision
	}
	if o == nil || reflect.ValueOf(o).IsNil() {
		return nil
	}
	return o
}
