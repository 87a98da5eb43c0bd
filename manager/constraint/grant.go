package constraint

import (
	"maps"
	"slices"

	"github.com/skep-io/skep/api"
)

// OfGrants returns the expressions that a node must meet for a task to have grants there: it has all the labels that they name.
func OfGrants(grants []*api.Grant) (expressions []string) {
	for _, grant := range grants {
		labels := grant.GetSpec().GetNodeLabels()
		for _, label := range slices.Sorted(maps.Keys(labels)) {
			expressions = append(expressions, nodeLabelPrefix+label+"=="+labels[label])
		}
	}
	return expressions
}
