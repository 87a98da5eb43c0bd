package scheduler

import (
	"fmt"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/constraint"
)

// constraints refuses nodes that the service's constraints exclude.
type constraints struct {
	set     constraint.Set
	service string
	// broken says that they can't be read. The server refuses such a spec; a task that got here nevertheless must not run anywhere.
	broken bool
}

func newConstraints(t *api.Task, service string) constraints {
	set, err := constraint.Parse(t.GetSpec().GetPlacement().GetConstraints())
	return constraints{set, service, err != nil}
}

func (f constraints) passes(n *node) bool { return !f.broken && f.set.Match(n.api) }

func (f constraints) key() string { return "constraints" + keyOf(f.set, f.broken) }

func (constraints) refusal(nodes int) string {
	return counted(nodes, "scheduling constraints not satisfied on 1 node", "scheduling constraints not satisfied on %d nodes")
}

func (constraints) name() string { return "constraints" }

// unmet returns the constraints that a node does not meet.
func (f constraints) unmet(n *node) (found []constraint.Constraint) {
	for _, c := range f.set {
		if !c.Match(n.api) {
			found = append(found, c)
		}
	}
	return found
}

func (f constraints) detail(n *node) string {
	var parts []string
	for _, c := range f.unmet(n) {
		if value, has := c.Value(n.api); has {
			parts = append(parts, fmt.Sprintf("%s: the node has %q", c, value))
		} else {
			parts = append(parts, c.String()+": the node has none")
		}
	}
	if f.broken {
		return "they can't be read"
	}
	return strings.Join(parts, ", ")
}

func (f constraints) remedy(n *node) Remedy {
	labels, rest := f.labels(n)
	if len(rest) == 0 {
		return labels
	}
	r := Remedy{Command: "skep service update", cost: costCondition + labels.cost}
	var texts []string
	for _, c := range rest {
		texts = append(texts, "drop the constraint "+c.Text())
		r.Command += " --constraint-rm '" + c.Text() + "'"
		r.cost++
	}
	r.Text, r.Command = strings.Join(texts, " and "), r.Command+" "+f.service
	if labels.Text != "" {
		r.Text, r.Command = r.Text+" and "+labels.Text, r.Command+" && "+labels.Command
	}
	return r
}

// labels returns what labels a node lacks, and the constraints that no label would meet.
func (f constraints) labels(n *node) (r Remedy, rest []constraint.Constraint) {
	var wanted []string
	for _, c := range f.unmet(n) {
		if label, value, ok := c.Wants(); ok && plainName.MatchString(label) && (value == "" || plainName.MatchString(value)) {
			wanted = append(wanted, label+"="+value)
			continue
		}
		rest = append(rest, c)
	}
	if len(wanted) == 0 {
		return Remedy{}, rest
	}
	return Remedy{
		Text:    "label node " + n.label() + " " + strings.Join(wanted, " and "),
		Command: "skep node update --label-add " + strings.Join(wanted, " --label-add ") + " " + n.label(), cost: costLabel + float64(len(wanted)-1)/2,
	}, rest
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
	return granted{constraints{set, t.GetServiceName(), err != nil}, strings.Join(names, ", ")}
}

func (f granted) key() string { return "granted" + keyOf(f.set, f.broken) }

func (f granted) refusal(nodes int) string {
	return counted(nodes, "1 node without", "%d nodes without") + " the labels that the service's grants ask for (" + f.grants + ")"
}

func (granted) name() string { return "grants" }

func (f granted) remedy(n *node) Remedy {
	r, rest := f.labels(n)
	if len(rest) > 0 || f.broken {
		return Remedy{}
	}
	return r
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
