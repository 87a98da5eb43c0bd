package specdiff_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/specdiff"
)

// enumFields calls fn with every field of an enum in a message and below it.
func enumFields(m protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool, fn func(protoreflect.FieldDescriptor)) {
	if seen[m.FullName()] {
		return
	}
	seen[m.FullName()] = true
	for i := range m.Fields().Len() {
		switch field := m.Fields().Get(i); {
		case field.Enum() != nil:
			fn(field)
		case field.Message() != nil:
			enumFields(field.Message(), seen, fn)
		}
	}
}

// Every enum of a spec is named by its word, not by its name in the API: no value begins with the name of its enum.
func TestOf_EnumsAreWords(t *testing.T) {
	fields := 0
	enumFields((&api.ServiceSpec{}).ProtoReflect().Descriptor(), map[protoreflect.FullName]bool{}, func(field protoreflect.FieldDescriptor) {
		fields++
		values := field.Enum().Values()
		prefix := strings.TrimSuffix(string(values.Get(0).Name()), "UNSPECIFIED")
		for i := range values.Len() {
			if name := string(values.Get(i).Name()); !strings.HasPrefix(name, prefix) || !strings.HasSuffix(prefix, "_") {
				t.Errorf("%s of %s: what its word is can't be told from %s", name, field.FullName(), values.Get(0).Name())
			}
		}
	})
	if fields < 5 {
		t.Errorf("a spec has %d enums: they were not found", fields)
	}
	spec := &api.ServiceSpec{
		Task: &api.TaskSpec{
			Restart:   &api.RestartPolicy{Condition: api.RestartCondition_RESTART_CONDITION_ON_FAILURE},
			Container: &api.ContainerSpec{},
		},
		Update: &api.UpdateConfig{Order: api.UpdateOrder_UPDATE_ORDER_START_FIRST, FailureAction: api.FailureAction_FAILURE_ACTION_PAUSE},
	}
	words := map[string]bool{}
	for _, d := range specdiff.Of(&api.ServiceSpec{}, spec) {
		words[d.New] = true
	}
	for _, want := range []string{"on-failure", "start-first", "pause"} {
		if !words[want] {
			t.Errorf("%q is not in %v", want, words)
		}
	}
}
