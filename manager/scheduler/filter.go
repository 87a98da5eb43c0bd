package scheduler

import (
	"fmt"
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
)

// filter refuses nodes to the tasks of one group. Each is a small type in a file of its own; filtersFor has their order.
type filter interface {
	// passes reports whether a node can run one task more of the group.
	passes(n *node) bool
	// refusal says what is wrong with that many nodes.
	refusal(nodes int) string
	// name is the filter's for people, and detail what is wrong with a node that does not pass.
	name() string
	detail(n *node) string
	// remedy is the smallest change by which a node that does not pass would; its zero value is none that is known.
	remedy(n *node) Remedy
}

// Remedy is a change that a person can make.
type Remedy struct {
	Text string
	// Command does it; empty when none does.
	Command string
	// cost orders remedies: what only adds to a node comes first, then what asks less of it, what gives up a condition, and last what is work.
	cost float64
}

// Costs of remedies. One that changes a number adds the part of it that goes, up to 1.
const (
	costLabel = 1 + iota*2
	costAvailability
	costNumber
	costCondition
	costOther
	costMachine
)

// fixedFilter is a filter whose answers depend on nodes and on what the swarm requires, and not on tasks: they are remembered until a node
// changes, for all groups with the same keys.
type fixedFilter interface {
	filter
	// key is the same only for filters of one type that answer alike.
	key() string
}

// filtersFor returns the filters that may refuse a node to the tasks of a group, of which t is one.
func (c *Core) filtersFor(g *group, t *api.Task) []filter {
	var filters []filter
	add := func(needed bool, f filter) {
		if needed {
			filters = append(filters, f)
		}
	}
	add(g.need.home != "", volumes{c, g.need.home, t})
	filters = append(filters, available{})
	constraints, granted := newConstraints(t, g.name), newGranted(t)
	add(g.need.cpus > 0 || g.need.memory > 0 || len(g.need.generic) > 0, resources{&g.need, g.name})
	add(len(constraints.set) > 0 || constraints.broken, constraints)
	add(len(granted.set) > 0 || granted.broken, granted)
	filters = append(filters, isolation{c})
	add(g.need.options, options{})
	add(g.need.storage, storage{})
	add(g.need.processors != "", newProcessors(g.need.processors, g.name))
	add(g.need.digest != "", platform{c, g.need.digest})
	add(len(g.need.ports) > 0, ports{c, &g.need, g.name})
	add(g.need.maxReplicas > 0, maxReplicas{c, g, g.need.maxReplicas})
	return filters
}

// counted returns a sentence about a number of nodes; many has a %d for it.
func counted(nodes int, one, many string) string {
	if nodes == 1 {
		return one
	}
	return fmt.Sprintf(many, nodes)
}

// fits reports whether a node that is eligible has room for one task more of the group.
func (g *group) fits(n *node) bool {
	for _, f := range g.changing {
		if !f.passes(n) {
			return false
		}
	}
	return true
}

// maxEligible bounds the cache of filtered nodes: entries beyond it belong to specs that are not used any more, most likely.
const maxEligible = 1024

// eligibleFor returns the nodes that pass all fixed filters of a group. It must not be changed.
func (c *Core) eligibleFor(g *group) (nodes []*node) {
	if g.need.bound != "" {
		return slices.DeleteFunc(c.considered(g), func(n *node) bool { return !g.mayRun(n) })
	}
	nodes, known := c.eligible[g.eligible]
	if known {
		return nodes
	}
	for _, n := range c.ordered {
		if g.mayRun(n) {
			nodes = append(nodes, n)
		}
	}
	if len(c.eligible) >= maxEligible {
		clear(c.eligible)
	}
	c.eligible[g.eligible] = nodes
	return nodes
}

// considered returns the nodes that a group's tasks are about: all, or the one that they are bound to.
func (c *Core) considered(g *group) []*node {
	if g.need.bound == "" {
		return c.ordered
	}
	if n := c.nodes[g.need.bound]; n != nil {
		return []*node{n}
	}
	return nil
}

// mayRun reports whether a node passes the filters that do not depend on other tasks.
func (g *group) mayRun(n *node) bool {
	return !slices.ContainsFunc(g.fixed, func(f fixedFilter) bool { return !f.passes(n) })
}

// explain says why no node can run the tasks of a group: each node is counted under the first filter that it does not pass.
func (c *Core) explain(g *group) string {
	failed := make([]int, len(g.filters))
	for _, n := range c.considered(g) {
		i := slices.IndexFunc(g.filters, func(f filter) bool { return !f.passes(n) })
		if i >= 0 {
			failed[i]++
		}
	}
	var reasons []string
	for i, f := range g.filters {
		if failed[i] > 0 {
			reasons = append(reasons, f.refusal(failed[i]))
		}
	}
	if len(reasons) == 0 {
		return "no suitable node"
	}
	return "no suitable node (" + strings.Join(reasons, "; ") + ")"
}
