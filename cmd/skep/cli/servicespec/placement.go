package servicespec

import (
	"slices"

	"github.com/spf13/pflag"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
)

// placementFlags say on which nodes tasks run.
type placementFlags struct {
	strategy   string
	maxPerNode uint64
}

func (p *placementFlags) register(set *pflag.FlagSet) {
	set.Uint64Var(&p.maxPerNode, "replicas-max-per-node", 0, "Maximum number of tasks per node (default 0 = unlimited)")
	set.StringVar(&p.strategy, "strategy", "", `Which of the nodes that can run a task gets it ("spread", "binpack")`)
}

func (p *placementFlags) apply(changed func(...string) bool, task *api.TaskSpec) error {
	if changed("replicas-max-per-node") {
		placementOf(task).MaxReplicas = p.maxPerNode
	}
	if !changed("strategy") {
		return nil
	}
	strategy, err := oneOf("strategy", p.strategy, "spread or binpack", map[string]api.PlacementStrategy{
		"spread":  api.PlacementStrategy_PLACEMENT_STRATEGY_SPREAD,
		"binpack": api.PlacementStrategy_PLACEMENT_STRATEGY_BINPACK,
	})
	if err != nil {
		return err
	}
	placementOf(task).Strategy = strategy
	return nil
}

// placementChanges are the flags of update that change lists.
type placementChanges struct {
	constraintAdd, constraintRemove flagvalue.List
	preferenceAdd, preferenceRemove flagvalue.Preferences
}

func (p *placementChanges) register(set *pflag.FlagSet) {
	set.Var(&p.constraintAdd, "constraint-add", "Add or update a placement constraint")
	set.Var(&p.constraintRemove, "constraint-rm", "Remove a constraint")
	set.Var(&p.preferenceAdd, "placement-pref-add", "Add a placement preference")
	set.Var(&p.preferenceRemove, "placement-pref-rm", "Remove a placement preference")
}

func (p *placementChanges) apply(changed func(...string) bool, task *api.TaskSpec) {
	if changed("constraint-add", "constraint-rm") {
		placement := placementOf(task)
		kept := slices.DeleteFunc(placement.Constraints, func(c string) bool { return slices.Contains(p.constraintRemove, c) })
		placement.Constraints = merge(kept, p.constraintAdd, func(c string) string { return c })
	}
	if changed("placement-pref-add", "placement-pref-rm") {
		placement := placementOf(task)
		kept := slices.DeleteFunc(placement.Preferences, func(present *api.PlacementPreference) bool {
			return slices.ContainsFunc(p.preferenceRemove, func(r *api.PlacementPreference) bool { return r.GetSpread() == present.GetSpread() })
		})
		placement.Preferences = merge(kept, p.preferenceAdd, (*api.PlacementPreference).GetSpread)
	}
}
