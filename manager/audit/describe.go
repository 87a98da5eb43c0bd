package audit

import (
	"context"
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/authz"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
)

// The results that are no kinds of errors.
const (
	resultOK      = "ok"
	resultRefused = "refused"
	resultLost    = "lost"
)

// requestIDKey is the metadata key of a request's id.
const requestIDKey = "skep-request-id"

// describe says who calls what, and which object the request names. Request may be nil.
func (l *Log) describe(ctx context.Context, method string, request any) *api.AuditEvent {
	e := l.about(authz.FromContext(ctx), method)
	if md, ok := metadata.FromIncomingContext(ctx); ok && len(md.Get(requestIDKey)) > 0 {
		e.RequestId = md.Get(requestIDKey)[0]
	}
	if m, ok := request.(proto.Message); ok {
		nameObject(e, m.ProtoReflect())
	}
	return e
}

// about is an event of a caller and a full method.
func (l *Log) about(caller authz.Caller, method string) *api.AuditEvent {
	e := &api.AuditEvent{
		Method:     shortMethod(method),
		CallerKind: strings.ToLower(strings.TrimPrefix(caller.Kind.String(), "CALLER_")),
		Caller:     caller.Name(), Address: caller.Address, Manager: caller.Via,
	}
	if strings.HasPrefix(caller.Address, "@") {
		e.Address = "@"
	}
	if e.Manager == "" {
		e.Manager = l.cfg.NodeID
	}
	return e
}

// shortMethod makes Control.CreateSecret of /skep.v1.Control/CreateSecret.
func shortMethod(full string) string {
	service, method, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	return service[strings.LastIndexByte(service, '.')+1:] + "." + method
}

// nameObject finds the object that a request is about: by a field like service or service_id, or by the name in its spec (U2).
func nameObject(e *api.AuditEvent, request protoreflect.Message) {
	fields := request.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if options, _ := field.Options().(*descriptorpb.FieldOptions); options.GetDebugRedact() || field.IsList() || field.IsMap() {
			continue
		}
		switch field.Kind() {
		case protoreflect.StringKind:
			nameByKey(e, string(field.Name()), request.Get(field).String())
		case protoreflect.MessageKind:
			nameBySpec(e, request.Get(field).Message().Interface())
		}
	}
}

func nameByKey(e *api.AuditEvent, field, value string) {
	name, isID := strings.CutSuffix(field, "_id")
	kind := strings.ReplaceAll(name, "_", " ")
	if value == "" || !isKind(kind) {
		return
	}
	e.ObjectKind = kind
	if isID || object.ValidID(value) {
		e.ObjectId = value
	} else {
		e.ObjectName = value
	}
}

func isKind(name string) bool {
	for _, k := range object.Kinds() {
		if k.String() == name {
			return true
		}
	}
	return false
}

func nameBySpec(e *api.AuditEvent, spec proto.Message) {
	annotated, ok := spec.(interface{ GetAnnotations() *api.Annotations })
	if !ok || annotated.GetAnnotations() == nil {
		return
	}
	kind := strings.ToLower(strings.TrimSuffix(string(spec.ProtoReflect().Descriptor().Name()), "Spec"))
	if e.GetObjectKind() == "" {
		e.ObjectKind = kind
	}
	if e.GetObjectName() == "" {
		e.ObjectName = annotated.GetAnnotations().GetName()
	}
}

// describeChanges says in e what a transaction does.
func describeChanges(e *api.AuditEvent, changes []store.Change) {
	main := changes[0]
	for _, c := range changes {
		if c.Kind().String() == e.GetObjectKind() && main.Kind().String() != e.GetObjectKind() {
			main = c
		}
	}
	e.ObjectKind, e.ObjectId, e.ObjectName = main.Kind().String(), main.Object.GetId(), object.Name(main.Object)
	e.Summary = verb(main)
	if more := len(changes) - 1; more > 0 {
		e.Summary += fmt.Sprintf("; %d more", more)
	}
}

func verb(c store.Change) string {
	switch c.Action {
	case store.ActionCreate:
		return "created"
	case store.ActionDelete:
		return "removed"
	default:
		fields := changedFields(c.Old.ProtoReflect(), c.Object.ProtoReflect(), "", maxDepth)
		if len(fields) > maxFields {
			fields = append(fields[:maxFields], "…")
		}
		return "changed " + strings.Join(fields, ", ")
	}
}

const (
	// maxDepth is how deep changed fields are named: spec.task.container.
	maxDepth = 3
	// maxFields bounds how many are.
	maxFields = 8
)

// changedFields names the fields in which two versions of an object differ, never their values (U2).
func changedFields(before, after protoreflect.Message, prefix string, depth int) (names []string) {
	fields := after.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		path := prefix + string(field.Name())
		if path == "meta" || before.Get(field).Equal(after.Get(field)) {
			continue
		}
		single := field.Kind() == protoreflect.MessageKind && !field.IsList() && !field.IsMap()
		if single && depth > 1 && before.Has(field) && after.Has(field) {
			names = append(names, changedFields(before.Get(field).Message(), after.Get(field).Message(), path+".", depth-1)...)
			continue
		}
		names = append(names, path)
	}
	return names
}

// resultOf is the result of a call that failed: the kind of the error. Its text may repeat what the caller sent, and is left out.
func resultOf(err error) string {
	if err == nil {
		return resultOK
	}
	return fault.KindOf(fault.FromStatus(err)).String()
}

// hostOf returns an address without its port, which is another one with each connection.
func hostOf(address string) string {
	if host, _, err := net.SplitHostPort(address); err == nil {
		return host
	}
	return address
}

// afterDot makes CreateSecret of Control.CreateSecret.
func afterDot(method string) string { return method[strings.LastIndexByte(method, '.')+1:] }
