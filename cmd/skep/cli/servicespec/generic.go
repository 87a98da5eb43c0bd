package servicespec

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
)

// genericChanges are the flags of update that change what is reserved of generic resources.
type genericChanges struct {
	add    flagvalue.GenericResources
	remove flagvalue.List
}

func (g *genericChanges) register(set *pflag.FlagSet) {
	set.Var(&g.add, "generic-resource-add", "Add a Generic resource")
	set.Var(&g.remove, "generic-resource-rm", "Remove a Generic resource")
}

// removed returns the kinds to remove; Docker also takes a number with them.
func (g *genericChanges) removed() []string {
	kinds := make([]string, 0, len(g.remove))
	for _, text := range g.remove {
		kind, _, _ := strings.Cut(text, "=")
		kinds = append(kinds, kind)
	}
	return kinds
}

func (g *genericChanges) apply(changed func(...string) bool, task *api.TaskSpec) {
	if !changed("generic-resource-add", "generic-resource-rm") {
		return
	}
	reserved, gone := reservationsOf(task), g.removed()
	kept := slices.DeleteFunc(reserved.Generic, func(r *api.GenericResource) bool { return slices.Contains(gone, r.GetKind()) })
	reserved.Generic = merge(kept, g.add, (*api.GenericResource).GetKind)
}

// reservationsOf returns what the task reserves, making what is missing.
func reservationsOf(task *api.TaskSpec) *api.Resources {
	if task.Resources == nil {
		task.Resources = &api.ResourceRequirements{}
	}
	if task.Resources.Reservations == nil {
		task.Resources.Reservations = &api.Resources{}
	}
	return task.Resources.Reservations
}
