package house_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/skep-io/skep/api"
)

// files calls fn for every proto file of ours.
func files(t *testing.T, fn func(protoreflect.FileDescriptor)) {
	t.Helper()
	n := 0
	protoregistry.GlobalFiles.RangeFilesByPackage("skep.v1", func(file protoreflect.FileDescriptor) bool {
		n++
		fn(file)
		return true
	})
	if n == 0 {
		t.Fatal("no proto files are registered")
	}
}

func TestMethods_SayWhoMayCall(t *testing.T) {
	files(t, func(file protoreflect.FileDescriptor) {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				method := methods.Get(j)
				access, _ := proto.GetExtension(method.Options(), api.E_Access).(*api.Access)
				if len(access.GetCallers()) == 0 {
					t.Errorf("%s has no (skep.v1.access): nobody could call it", method.FullName())
				}
			}
		}
	})
}

// An RPC that changes something or hands out a secret is in the audit log.
func TestMethods_SayWhatTheAuditLogHas(t *testing.T) {
	files(t, func(file protoreflect.FileDescriptor) {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				method := methods.Get(j)
				access, _ := proto.GetExtension(method.Options(), api.E_Access).(*api.Access)
				if access.GetAudit() == api.AuditRule_AUDIT_RULE_UNSPECIFIED {
					t.Errorf("%s does not say which calls the audit log has: add to its (access) audit: AUDIT_RULE_CALLS if it changes something "+
						"or hands out a secret, else audit: AUDIT_RULE_REFUSALS", method.FullName())
				}
			}
		}
	})
}

func TestSecretMessages_RedactThemselves(t *testing.T) {
	const canary = "canary-5f1d"
	checked := 0
	files(t, func(file protoreflect.FileDescriptor) {
		for i := range file.Messages().Len() {
			kind, err := protoregistry.GlobalTypes.FindMessageByName(file.Messages().Get(i).FullName())
			if err != nil {
				t.Fatal(err)
			}
			message := kind.New()
			if !plant(message, canary, map[protoreflect.FullName]bool{}) {
				continue
			}
			checked++
			for _, printed := range prints(message.Interface()) {
				if strings.Contains(printed, canary) {
					t.Errorf("%s prints its secret: %s", message.Descriptor().FullName(), printed)
				}
			}
		}
	})
	if checked < 5 {
		t.Errorf("only %d messages hold a secret: the marks in proto/ are gone", checked)
	}
}

// prints returns the message as every printing door shows it.
func prints(message proto.Message) []string {
	var text, json bytes.Buffer
	slog.New(slog.NewTextHandler(&text, nil)).Info("m", "message", message)
	slog.New(slog.NewJSONHandler(&json, nil)).Info("m", "message", message)
	return []string{
		fmt.Sprint(message), fmt.Sprintf("%s", message), fmt.Sprintf("%v", message), fmt.Sprintf("%+v", message),
		fmt.Sprintf("%#v", message), fmt.Sprintf("%q", message), text.String(), json.String(),
	}
}

// plant puts the canary into every field that is marked as a secret, here and in the messages inside, and reports
// whether there was one.
func plant(message protoreflect.Message, canary string, seen map[protoreflect.FullName]bool) bool {
	name := message.Descriptor().FullName()
	if seen[name] {
		return false
	}
	seen[name] = true
	defer delete(seen, name)
	planted := false
	fields := message.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		options, _ := field.Options().(*descriptorpb.FieldOptions)
		secret := protoreflect.ValueOfString(canary)
		if field.Kind() == protoreflect.BytesKind {
			secret = protoreflect.ValueOfBytes([]byte(canary))
		}
		switch {
		case options.GetDebugRedact() && field.IsList():
			message.Mutable(field).List().Append(secret)
			planted = true
		case options.GetDebugRedact():
			message.Set(field, secret)
			planted = true
		case field.IsMap(), field.Kind() != protoreflect.MessageKind:
		case field.IsList():
			element := message.Mutable(field).List().AppendMutable().Message()
			planted = plant(element, canary, seen) || planted
		default:
			if field.ContainingOneof() != nil && planted {
				continue
			}
			planted = plant(message.Mutable(field).Message(), canary, seen) || planted
		}
	}
	return planted
}
