package scheduler

import (
	"time"
)

// place decides about all tasks of a group.
func (c *Core) place(now time.Time, g *group) []Decision {
	g.compact()
	scorers := c.scorersFor(now, g)
	root := c.rank(g, scorers)
	decisions := make([]Decision, 0, len(g.tasks))
	waiting := g.tasks
	g.tasks = nil
	for i, t := range waiting {
		best := root.best()
		if best == nil {
			g.tasks = waiting[i:]
			break
		}
		g.leave(t)
		t.node, t.live, t.holds = best.node, true, true
		c.take(t)
		decisions = append(decisions, Decision{Task: t.api, Node: best.node.api, Generic: t.generic})
		if i+1 == len(waiting) {
			break
		}
		root.raise(func(candidate *candidate) bool {
			candidate.rank = scored(scorers, candidate.node)
			return g.fits(candidate.node)
		})
	}
	if len(g.tasks) == 0 {
		return decisions
	}
	reason := c.explain(g)
	for _, t := range g.tasks {
		if t.api.GetStatus().GetErr() != reason {
			decisions = append(decisions, Decision{Task: t.api, Reason: reason})
		}
	}
	return decisions
}

func scored(scorers [ranks]scorer, n *node) (r rank) {
	for i, s := range scorers {
		r[i] = s.score(n)
	}
	return r
}

// rank returns the nodes that a group's tasks can run on, until it is called again.
func (c *Core) rank(g *group, scorers [ranks]scorer) *branch {
	if len(g.tasks) == 1 && len(g.preferences) == 0 {
		return c.first(g, scorers)
	}
	root := &branch{nodes: c.scratch[:0]}
	for _, n := range c.eligibleFor(g) {
		if !g.fits(n) {
			continue
		}
		at := root
		for _, label := range g.preferences {
			at = at.find(label, n, true)
		}
		at.nodes = append(at.nodes, candidate{n, scored(scorers, n)})
	}
	if len(g.preferences) > 0 {
		c.countBranches(g, root)
	} else {
		c.scratch = root.nodes
	}
	root.order()
	return root
}

// first returns the best node for one task of a group, or nothing: to rank them all would be in vain.
func (c *Core) first(g *group, scorers [ranks]scorer) *branch {
	var best candidate
	for _, n := range c.eligibleFor(g) {
		if !g.fits(n) {
			continue
		}
		if other := (candidate{n, scored(scorers, n)}); best.node == nil || compareCandidates(&other, &best) < 0 {
			best = other
		}
	}
	if best.node == nil {
		return &branch{}
	}
	return &branch{nodes: candidates{best}}
}

// countBranches tells branches how many tasks of the service they have.
func (c *Core) countBranches(g *group, root *branch) {
	s := c.services[g.key.service]
	if s == nil {
		return
	}
	for n, tasks := range s.live {
		at := root
		for _, label := range g.preferences {
			if at = at.find(label, n, false); at == nil {
				break
			}
			at.tasks += tasks
		}
	}
}
