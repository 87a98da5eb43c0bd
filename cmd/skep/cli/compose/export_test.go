package compose

import (
	"reflect"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// TakenKeys returns the paths of all keys that become part of a stack.
func TakenKeys() []string { return strings.Fields(taken) }

// Uses reports whether a project has a key that is taken.
func Uses(project *types.Project, path string) bool {
	s := sifter{fates: fates(), ignored: map[string]bool{}}
	delete(s.fates, path)
	s.fields(reflect.ValueOf(project).Elem(), "", "")
	return slices.ContainsFunc(s.refused, func(text string) bool { return strings.Contains(text, "does not know it") })
}
