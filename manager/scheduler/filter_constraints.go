package scheduler

import (
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/constraint"
)

// constraints refuses nodes that the service's constraints exclude.
type constraints struct {
	set constraint.Set
	// broken says that they can't be read. The server refuses such a spec; a task that got here nevertheless must not run anywhere.
	broken bool
}

func newConstraints(t *api.Task) constraints {
	set, err := constraint.Parse(t.GetSpec().GetPlacement().GetConstraints())
	return constraints{set, err != nil}
}

func (f constraints) passes(n *node) bool { return !f.broken && f.set.Match(n.api) }

func (f constraints) key() string { return "constraints" + keyOf(f.set, f.broken) }

func (constraints) refusal(nodes int) string {
	return counted(nodes, "scheduling constraints not satisfied on 1 node", "scheduling constraints not satisfied on %d nodes")
}

// granted refuses nodes without the labels that the task's grants ask for.
type granted struct {
	constraints
	grants string // their names
}

func newGranted(t *api.Task) granted {
	set, err := constraint.Parse(constraint.OfGrants(t.GetGrants()))
	var names []string
	for _, grant := range t.GetGrants() {
		if len(grant.GetSpec().GetNodeLabels()) > 0 {
			names = append(names, grant.GetSpec().GetAnnotations().GetName())
		}
	}
	return granted{constraints{set, err != nil}, strings.Join(names, ", ")}
}

func (f granted) key() string { return "granted" + keyOf(f.set, f.broken) }

func (f granted) refusal(nodes int) string {
	return counted(nodes, "1 node without", "%d nodes without") + " the labels that the service's grants ask for (" + f.grants + ")"
}

// keyOf returns a text that only equal sets have.
func keyOf(set constraint.Set, broken bool) string {
	if broken {
		return "!"
	}
	var key []byte
	for _, c := range set {
		key = appendText(key, c.String())
	}
	return string(key)
}
