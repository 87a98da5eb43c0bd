package scheduler

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/skep-io/skep/api"
)

// Verdict is what a Core thinks of a node for one task.
type Verdict struct {
	Node *api.Node
	// Refusals are the filters that refuse the node, in their order; none for a node that would take the task.
	Refusals []Refusal
	// Scores compare the node with others that would take the task: less is better, an earlier one decides first.
	Scores []Score
}

// Refusal is why a filter refuses a node, and what would have it accept the node: a zero Remedy is nothing that is known.
type Refusal struct {
	Filter, Reason string
	Remedy         Remedy
}

// Score is what one scorer, or one placement preference, makes of a node.
type Score struct {
	Name  string
	Value int64
}

// Explain says of each node whether it would take a task that waits; tasks that are known keep their places. Nodes that would take it come
// first, the best one at the top, the others by name. The remedies are the smallest by which a node would, or nil when one does or none
// is known. The task need not be one that the core knows; it decides nothing and forgets the task.
func (c *Core) Explain(now time.Time, t *api.Task) (verdicts []Verdict, remedies []Remedy) {
	if c.nodesStale {
		c.learnNodes()
	}
	g := c.newGroup(groupKey{t.GetServiceId(), t.GetSpecVersion(), ""}, t, needOf(t))
	scorers := c.scorersFor(now, g)
	var takers []candidate
	var refused []Verdict
	cheapest := 0.0
	for _, n := range c.considered(g) {
		v := Verdict{Node: n.api}
		var changes []Remedy
		cost := 0.0
		for _, f := range g.filters {
			if f.passes(n) {
				continue
			}
			r := Refusal{Filter: f.name(), Reason: f.detail(n), Remedy: f.remedy(n)}
			v.Refusals = append(v.Refusals, r)
			changes = append(changes, r.Remedy)
			cost += r.Remedy.cost
		}
		if len(v.Refusals) == 0 {
			takers = append(takers, candidate{n, scored(scorers, n)})
			continue
		}
		refused = append(refused, v)
		known := !slices.ContainsFunc(changes, func(r Remedy) bool { return r.Text == "" })
		if known && (remedies == nil || cost < cheapest) {
			remedies, cheapest = changes, cost
		}
	}
	if len(takers) > 0 {
		remedies = nil
	}
	slices.SortFunc(refused, func(a, b Verdict) int {
		return cmp.Or(strings.Compare(a.Node.GetDescription().GetHostname(), b.Node.GetDescription().GetHostname()), strings.Compare(a.Node.GetId(), b.Node.GetId()))
	})
	return append(c.verdictsOf(g, scorers, takers), refused...), remedies
}

// verdictsOf orders the nodes that would take a task of the group.
func (c *Core) verdictsOf(g *group, scorers [ranks]scorer, takers []candidate) (verdicts []Verdict) {
	root := &branch{}
	for _, taker := range takers {
		at := root
		for _, label := range g.preferences {
			at = at.find(label, taker.node, true)
		}
		at.nodes = append(at.nodes, taker)
	}
	c.countBranches(g, root)
	root.order()
	best := root.best()
	slices.SortFunc(takers, func(a, b candidate) int {
		if first := cmp.Compare(isNode(b, best), isNode(a, best)); first != 0 {
			return first
		}
		return compareCandidates(&a, &b)
	})
	for _, taker := range takers {
		v := Verdict{Node: taker.node.api}
		at := root
		for _, label := range g.preferences {
			at = at.find(label, taker.node, false)
			v.Scores = append(v.Scores, Score{"tasks on nodes with the same " + label.String(), int64(at.tasks)})
		}
		for i, s := range scorers {
			v.Scores = append(v.Scores, Score{s.name(), taker.rank[i]})
		}
		verdicts = append(verdicts, v)
	}
	return verdicts
}

func isNode(c candidate, best *candidate) int {
	if best != nil && c.node == best.node {
		return 1
	}
	return 0
}
