package scheduler

import (
	"container/heap"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/skep-io/skep/api"
)

// maxEligible bounds the cache of filtered nodes: entries beyond it belong to specs that are not used any more, most likely.
const maxEligible = 1024

// place decides about all tasks of a group.
func (c *Core) place(now time.Time, g *group) []Decision {
	candidates := c.rank(now, g)
	decisions := make([]Decision, 0, len(g.tasks))
	waiting := g.tasks
	g.tasks = nil
	for i, t := range waiting {
		n := candidates.best(g.need)
		if n == nil {
			g.tasks = waiting[i:]
			break
		}
		t.group, t.node, t.live, t.holds = nil, n, true, true
		c.take(t)
		candidates.raise()
		decisions = append(decisions, Decision{Task: t.api, Node: n.api})
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

// candidate is a node that passes all filters, and its rank.
type candidate struct {
	node   *node
	faulty bool
	ofSame int // live tasks of the service, on the node
}

// candidates is a heap: the best one is first.
type candidates []candidate

func (h candidates) Len() int      { return len(h) }
func (h candidates) Swap(i, j int) { h[i], h[j] = h[j], h[i] }

func (h candidates) Less(i, j int) bool {
	a, b := h[i], h[j]
	if a.faulty != b.faulty {
		return b.faulty
	}
	if a.ofSame != b.ofSame {
		return a.ofSame < b.ofSame
	}
	if a.node.live != b.node.live {
		return a.node.live < b.node.live
	}
	return a.node.api.GetId() < b.node.api.GetId()
}

// Push is for package heap.
func (h *candidates) Push(x any) { *h = append(*h, x.(candidate)) }

// Pop is for package heap.
func (h *candidates) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// best returns the best node that still has room, or nil. Nodes without room are dropped: all tasks of a group need the same.
func (h *candidates) best(what need) *node {
	for len(*h) > 0 {
		first := (*h)[0]
		if first.node.hasRoom(what) && first.node.hasPorts(what) && mayHaveMore(first.ofSame, what) {
			return first.node
		}
		heap.Pop(h)
	}
	return nil
}

// raise notes that the best node got one more task.
func (h *candidates) raise() {
	(*h)[0].ofSame++
	heap.Fix(h, 0)
}

// rank returns the nodes that a group's tasks can run on, until it is called again.
func (c *Core) rank(now time.Time, g *group) *candidates {
	if g.need.nowhere {
		return &candidates{}
	}
	nodes := c.eligibleFor(g)
	h := c.scratch[:0]
	s := c.services[g.key.service]
	for _, n := range nodes {
		if !n.hasRoom(g.need) || !n.hasPorts(g.need) {
			continue
		}
		entry := candidate{node: n}
		if s != nil && len(s.live)+len(s.failures) > 0 {
			entry.ofSame, entry.faulty = s.live[n], s.faulty(now, n, g.key.specVersion)
		}
		if mayHaveMore(entry.ofSame, g.need) {
			h = append(h, entry)
		}
	}
	c.scratch = h
	if len(g.tasks) > 1 {
		heap.Init(&h)
		return &h
	}
	// For one task the best one in front is all that is asked for.
	for i := range h {
		if h.Less(i, 0) {
			h.Swap(i, 0)
		}
	}
	return &h
}

// eligibleFor returns the nodes that are available and meet constraints and platform. It must not be changed.
func (c *Core) eligibleFor(g *group) (nodes []*node) {
	if g.need.bound != "" {
		return slices.DeleteFunc(c.considered(g), func(n *node) bool { return !c.mayRun(n, g) })
	}
	var key strings.Builder
	key.WriteString(g.need.digest)
	if g.need.options {
		key.WriteByte(1)
	}
	if g.need.storage {
		key.WriteByte(2)
	}
	for _, constraint := range slices.Concat(g.constraints, g.granted) {
		key.WriteByte(0)
		key.WriteString(constraint.String())
	}
	nodes, known := c.eligible[key.String()]
	if known {
		return nodes
	}
	for _, n := range c.ordered {
		if c.mayRun(n, g) {
			nodes = append(nodes, n)
		}
	}
	if len(c.eligible) >= maxEligible {
		clear(c.eligible)
	}
	c.eligible[key.String()] = nodes
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
func (c *Core) mayRun(n *node, g *group) bool {
	return n.available && g.constraints.Match(n.api) && g.granted.Match(n.api) && c.isolates(n, g.need) && n.bounds(g.need) &&
		c.hasPlatform(n, g.need)
}

func (n *node) hasRoom(what need) bool {
	return (what.cpus == 0 || what.cpus <= n.totalCPUs-n.takenCPUs) && (what.memory == 0 || what.memory <= n.totalMemory-n.takenMemory)
}

func (n *node) hasPorts(what need) bool {
	for _, port := range what.ports {
		if n.ports[port] > 0 {
			return false
		}
	}
	return true
}

func mayHaveMore(ofSame int, what need) bool {
	return what.maxReplicas == 0 || uint64(ofSame) < what.maxReplicas
}

// isolates reports whether a node isolates containers by all that the swarm requires, and knows the options of a task that has some.
func (c *Core) isolates(n *node, what need) bool { return !n.ignores(what) && len(c.missing(n)) == 0 }

// ignores reports whether a node would ignore what is to isolate a task: its program is from before there were such options.
func (n *node) ignores(what need) bool {
	return what.options && len(n.api.GetDescription().GetIsolation()) == 0
}

// bounds reports whether a node can hold a task to the storage size that it has, if it has one.
func (n *node) bounds(what need) bool {
	return !what.storage || n.api.GetDescription().GetStorageLimits()
}

// missing returns what the swarm requires and a node lacks.
func (c *Core) missing(n *node) (names []string) {
	for _, name := range c.required {
		if !slices.Contains(n.api.GetDescription().GetIsolation(), name) {
			names = append(names, name)
		}
	}
	return names
}

// allMissing returns what the swarm requires and some node that is available lacks.
func (c *Core) allMissing() string {
	var names []string
	for _, name := range c.required {
		if slices.ContainsFunc(c.ordered, func(n *node) bool { return n.available && slices.Contains(c.missing(n), name) }) {
			names = append(names, name)
		}
	}
	return strings.Join(names, ", ")
}

func (c *Core) hasPlatform(n *node, what need) bool {
	platforms := c.images[what.digest]
	if what.digest == "" || len(platforms) == 0 {
		return true
	}
	own := n.api.GetDescription().GetPlatform()
	return slices.ContainsFunc(platforms, func(p *api.Platform) bool {
		return p.GetOs() == own.GetOs() && p.GetArchitecture() == own.GetArchitecture()
	})
}

// filter is one reason why a node cannot run a task.
type filter struct {
	passes func(*node) bool
	// one and many describe the nodes that do not pass; %d is their number.
	one, many string
}

func (c *Core) filters(g *group) []filter {
	same := map[*node]int{}
	if s := c.services[g.key.service]; s != nil {
		same = s.live
	}
	return []filter{
		{func(n *node) bool { return n.available }, "1 node not available for new tasks", "%d nodes not available for new tasks"},
		{func(n *node) bool { return n.hasRoom(g.need) }, "insufficient resources on 1 node", "insufficient resources on %d nodes"},
		{
			func(n *node) bool { return !g.need.nowhere && g.constraints.Match(n.api) },
			"scheduling constraints not satisfied on 1 node", "scheduling constraints not satisfied on %d nodes",
		},
		{
			func(n *node) bool { return g.granted.Match(n.api) },
			"1 node without the labels that the service's grants ask for (" + g.grants + ")",
			"%d nodes without the labels that the service's grants ask for (" + g.grants + ")",
		},
		{
			func(n *node) bool { return len(c.missing(n)) == 0 },
			"1 node without the isolation that the swarm requires (" + c.allMissing() + ")",
			"%d nodes without the isolation that the swarm requires (" + c.allMissing() + ")",
		},
		{
			func(n *node) bool { return !n.ignores(g.need) },
			"1 node too old for the service's security options", "%d nodes too old for the service's security options",
		},
		{
			func(n *node) bool { return n.bounds(g.need) },
			"1 node whose disk has no project quotas for --storage-size", "%d nodes whose disks have no project quotas for --storage-size",
		},
		{func(n *node) bool { return c.hasPlatform(n, g.need) }, "unsupported platform on 1 node", "unsupported platform on %d nodes"},
		{
			func(n *node) bool { return n.hasPorts(g.need) },
			"host-mode port already in use on 1 node", "host-mode port already in use on %d nodes",
		},
		{
			func(n *node) bool { return mayHaveMore(same[n], g.need) },
			"max replicas per node limit exceed", "max replicas per node limit exceed",
		},
	}
}

// explain says why no node can run the tasks of a group.
func (c *Core) explain(g *group) string {
	filters := c.filters(g)
	failed := make([]int, len(filters))
	for _, n := range c.considered(g) {
		i := slices.IndexFunc(filters, func(f filter) bool { return !f.passes(n) })
		if i >= 0 {
			failed[i]++
		}
	}
	var reasons []string
	for i, f := range filters {
		switch {
		case failed[i] == 1:
			reasons = append(reasons, f.one)
		case failed[i] > 1 && strings.Contains(f.many, "%d"):
			reasons = append(reasons, fmt.Sprintf(f.many, failed[i]))
		case failed[i] > 1:
			reasons = append(reasons, f.many)
		}
	}
	if len(reasons) == 0 {
		return "no suitable node"
	}
	return "no suitable node (" + strings.Join(reasons, "; ") + ")"
}
