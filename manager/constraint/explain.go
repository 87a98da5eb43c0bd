package constraint

import "github.com/skep-io/skep/api"

// Value returns what a node has under the constraint's key, and whether it has anything.
func (c Constraint) Value(node *api.Node) (value string, found bool) { return c.valueOf(node) }

// Wants returns a label of `node update` by which any node would meet the constraint; ok is false when there is none. The value may be empty.
func (c Constraint) Wants() (label, value string, ok bool) {
	switch {
	case c.key != nodeLabelPrefix || c.negate:
		return "", "", false
	case c.op == opEqual, c.op == opIn:
		return c.label, c.values[0], true
	case c.op == opExists:
		return c.label, "", true
	default:
		return "", "", false
	}
}

// Text returns the constraint as it was written, which is what `service update --constraint-rm` takes.
func (c Constraint) Text() string { return c.text }
