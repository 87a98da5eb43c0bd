package flagvalue

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/skep-io/skep/api"
)

// GenericResources collects numbers of what nodes have: KIND=NUMBER.
type GenericResources []*api.GenericResource

// Set adds one kind.
func (g *GenericResources) Set(text string) error {
	kind, value, _ := strings.Cut(text, "=")
	count, err := strconv.ParseInt(value, 10, 64)
	if kind == "" || err != nil || count < 1 {
		return fmt.Errorf("invalid generic resource: %q: write KIND=NUMBER, such as gpu=2", text)
	}
	*g = append(*g, &api.GenericResource{Kind: kind, Count: count})
	return nil
}

// Kinds returns the kinds.
func (g GenericResources) Kinds() []string {
	kinds := make([]string, 0, len(g))
	for _, r := range g {
		kinds = append(kinds, r.GetKind())
	}
	return kinds
}

// String is empty: the default is nothing.
func (g *GenericResources) String() string { return strings.Join(g.Kinds(), ", ") }

// Type is Docker's word.
func (g *GenericResources) Type() string { return "list" }
