package constraint

import (
	"fmt"

	"github.com/skep-io/skep/api"
)

// Label names a label of nodes. The zero value is none; every other comes from [ParseLabel].
type Label struct{ of Constraint }

// ParseLabel reads the key of a label, node.labels.NAME or engine.labels.NAME.
func ParseLabel(key string) (Label, error) {
	var c Constraint
	if len(key) > MaxExpression {
		return Label{}, fmt.Errorf("key '%s' is too long", clip(key))
	}
	found, err := c.setLabel(key)
	if !found {
		return Label{}, fmt.Errorf("key '%s' is no label: use %sLABEL or %sLABEL", clip(key), nodeLabelPrefix, engineLabelPrefix)
	}
	if err != nil {
		return Label{}, err
	}
	return Label{c}, nil
}

// Of returns the value that a node has, and whether it has the label.
func (l Label) Of(node *api.Node) (value string, found bool) { return l.of.valueOf(node) }

// String returns the key in the form that [ParseLabel] reads.
func (l Label) String() string { return l.of.key + l.of.label }
