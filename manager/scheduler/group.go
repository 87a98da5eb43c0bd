package scheduler

import (
	"slices"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/constraint"
)

// groupKey names tasks that need the same. Tasks of one version need not: a change of placement that asks for no new tasks
// leaves the version as it is.
type groupKey struct {
	service     string
	specVersion uint64
	need        string
}

// group is the tasks that wait and need the same.
type group struct {
	key groupKey
	// name is the service's, for people.
	name string
	// tasks are in order of arrival. Those that left the group meanwhile are among them; waiting is how many did not.
	tasks   []*task
	waiting int
	need    need
	// fixed and changing are the filters, all of them in the order of the package comment in filters.
	filters  []filter
	fixed    []fixedFilter
	changing []filter
	// eligible is the key of what fixed let pass, in Core.eligible.
	eligible string
	// preferences are what the tasks are spread over, from the outermost on.
	preferences []constraint.Label
	strategy    api.PlacementStrategy
	// stale says that something changed since the group was tried last.
	stale bool
}

// enqueue makes a task wait.
func (c *Core) enqueue(t *task) {
	what, placement := needOf(t.api), t.api.GetSpec().GetPlacement()
	var spread []string
	for _, preference := range placement.GetPreferences() {
		spread = append(spread, preference.GetSpread())
	}
	key := groupKey{t.api.GetServiceId(), t.api.GetSpecVersion(), what.key(
		placement.GetConstraints(), constraint.OfGrants(t.api.GetGrants()), spread, []string{placement.GetStrategy().String()})}
	g := c.waiting[key]
	if g == nil {
		g = c.newGroup(key, t.api, what)
		c.waiting[key] = g
		c.queue = append(c.queue, g)
	}
	g.tasks = append(g.tasks, t)
	g.waiting++
	g.stale = true
	t.group, t.need = g, &g.need
}

func (c *Core) newGroup(key groupKey, t *api.Task, what need) *group {
	g := &group{key: key, name: t.GetServiceName(), need: what, strategy: t.GetSpec().GetPlacement().GetStrategy()}
	for _, preference := range t.GetSpec().GetPlacement().GetPreferences() {
		// The server refuses one that is no label; a preference may be left out, as it refuses no node.
		if label, err := constraint.ParseLabel(preference.GetSpread()); err == nil {
			g.preferences = append(g.preferences, label)
		}
	}
	g.filters = c.filtersFor(g, t)
	for _, f := range g.filters {
		if fixed, ok := f.(fixedFilter); ok {
			g.fixed = append(g.fixed, fixed)
			g.eligible = string(appendText([]byte(g.eligible), fixed.key()))
			continue
		}
		g.changing = append(g.changing, f)
	}
	return g
}

// leave takes a task out of the group.
func (g *group) leave(t *task) {
	t.group = nil
	g.waiting--
}

// compact forgets the tasks that left.
func (g *group) compact() {
	if g.waiting < len(g.tasks) {
		g.tasks = slices.DeleteFunc(g.tasks, func(t *task) bool { return t.group != g })
	}
}
