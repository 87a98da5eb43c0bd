package specdiff

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
)

// maxShown bounds the length in bytes of a value in a difference: a seccomp profile has thousands.
const maxShown = 200

// Difference is a field of a spec that has another value, or a part of a list that was added or taken away.
type Difference struct {
	Field    string // as errors name it: task.container.image
	Old, New string // empty is unset
}

// String says what became of the field.
func (d Difference) String() string {
	switch {
	case d.Old == "":
		return d.Field + ": + " + d.New
	case d.New == "":
		return d.Field + ": - " + d.Old
	default:
		return d.Field + ": " + d.Old + " -> " + d.New
	}
}

// Of compares two specs field by field, in the order of the fields; either may be nil.
func Of(old, new *api.ServiceSpec) []Difference {
	return compareMessages(nil, "", old.ProtoReflect(), new.ProtoReflect())
}

func compareMessages(out []Difference, path string, old, new protoreflect.Message) []Difference {
	fields := old.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if a, b := old.Get(field), new.Get(field); !a.Equal(b) {
			out = compareField(out, strings.TrimPrefix(path+"."+string(field.Name()), "."), field, a, b)
		}
	}
	return out
}

func compareField(out []Difference, path string, field protoreflect.FieldDescriptor, old, new protoreflect.Value) []Difference {
	switch {
	case field.IsMap():
		return compareParts(out, path, mapParts(old.Map()), mapParts(new.Map()))
	case field.IsList():
		return compareParts(out, path, listParts(field, old.List()), listParts(field, new.List()))
	case field.Message() != nil && field.Message().FullName() != (&durationpb.Duration{}).ProtoReflect().Descriptor().FullName():
		return compareMessages(out, path, old.Message(), new.Message())
	}
	return append(out, Difference{path, shown(field, old), shown(field, new)})
}

// compareParts tells what is in only one of two lists; when nothing is, their order differs.
func compareParts(out []Difference, path string, old, new []string) []Difference {
	before := len(out)
	for _, part := range old {
		if !slices.Contains(new, part) {
			out = append(out, Difference{Field: path, Old: part})
		}
	}
	for _, part := range new {
		if !slices.Contains(old, part) {
			out = append(out, Difference{Field: path, New: part})
		}
	}
	if len(out) == before {
		out = append(out, Difference{path, strings.Join(old, ", "), strings.Join(new, ", ")})
	}
	return out
}

func mapParts(m protoreflect.Map) (parts []string) {
	m.Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		parts = append(parts, clipped(key.String()+"="+value.String()))
		return true
	})
	slices.Sort(parts)
	return parts
}

func listParts(field protoreflect.FieldDescriptor, list protoreflect.List) (parts []string) {
	for i := range list.Len() {
		parts = append(parts, shown(field, list.Get(i)))
	}
	return parts
}

// word is the value of an enum as the flags of the command line have it: UPDATE_ORDER_START_FIRST is start-first. What all values of an enum begin
// with is what the first of them, …_UNSPECIFIED, begins with.
func word(value protoreflect.EnumValueDescriptor) string {
	enum := value.Parent().(protoreflect.EnumDescriptor)
	prefix := strings.TrimSuffix(string(enum.Values().Get(0).Name()), "UNSPECIFIED")
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(string(value.Name()), prefix)), "_", "-")
}

// shown is a value as people write it.
func shown(field protoreflect.FieldDescriptor, value protoreflect.Value) string {
	switch field.Kind() {
	case protoreflect.EnumKind:
		name := field.Enum().Values().ByNumber(value.Enum())
		if name == nil || name.Number() == 0 {
			return ""
		}
		return word(name)
	case protoreflect.BytesKind:
		if len(value.Bytes()) == 0 {
			return ""
		}
		return fmt.Sprintf("%d bytes", len(value.Bytes()))
	case protoreflect.MessageKind:
		return shownMessage(value.Message())
	}
	return clipped(value.String())
}

func shownMessage(m protoreflect.Message) string {
	if !m.IsValid() {
		return ""
	}
	if d, ok := m.Interface().(*durationpb.Duration); ok {
		return d.AsDuration().String()
	}
	var parts []string
	for _, d := range compareMessages(nil, "", m.New(), m) {
		parts = append(parts, d.Field+"="+d.New)
	}
	return clipped(strings.Join(parts, ","))
}

func clipped(text string) string {
	if len(text) <= maxShown {
		return text
	}
	return strings.ToValidUTF8(text[:maxShown], "") + "…"
}

// Fields names the fields of differences, each once.
func Fields(all []Difference) (fields []string) {
	for _, d := range all {
		if !slices.Contains(fields, d.Field) {
			fields = append(fields, d.Field)
		}
	}
	return fields
}
