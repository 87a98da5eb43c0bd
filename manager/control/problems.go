package control

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/internal/fault"
)

// maxProblems bounds how many problems one error lists: more help nobody.
const maxProblems = 20

// problems collects what is wrong with a spec.
type problems struct {
	list []string
	more int
}

// add notes a problem of the field at path.
func (p *problems) add(path, format string, args ...any) {
	if len(p.list) == maxProblems {
		p.more++
		return
	}
	p.list = append(p.list, path+": "+fmt.Sprintf(format, args...))
}

// err returns all problems as one fault, or nil when there are none.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	text := strings.Join(p.list, "; ")
	if p.more > 0 {
		text += fmt.Sprintf("; and %d more", p.more)
	}
	return fault.New(fault.Invalid, "%s", text)
}

// duration checks that d is a valid duration and not negative.
func (p *problems) duration(path string, d *durationpb.Duration) {
	switch {
	case d == nil:
	case d.CheckValid() != nil:
		p.add(path, "is not a valid duration")
	case d.AsDuration() < 0:
		p.add(path, "cannot be negative, got %s", d.AsDuration())
	}
}

// labels checks the keys of labels.
func (p *problems) labels(path string, labels map[string]string) {
	for key := range labels {
		if strings.TrimSpace(key) == "" {
			p.add(path, "a label has an empty key")
		}
	}
}

// seconds returns n seconds.
func seconds(n int64) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Second) }

// knownFields refuses a spec with fields that this version does not know: what a newer client asks for, such as a restriction,
// must not be left out in silence.
func (p *problems) knownFields(spec proto.Message) {
	if hasUnknown(spec.ProtoReflect()) {
		p.add("spec", "has fields that this version does not know: update the managers, or use an older client")
	}
}

// hasUnknown reports whether a message, or one below it, has unknown fields.
func hasUnknown(m protoreflect.Message) bool {
	if len(m.GetUnknown()) > 0 {
		return true
	}
	found := false
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Message() == nil || field.IsMap(): // our maps are of strings
		case field.IsList():
			for i := range value.List().Len() {
				found = found || hasUnknown(value.List().Get(i).Message())
			}
		default:
			found = hasUnknown(value.Message())
		}
		return !found
	})
	return found
}
