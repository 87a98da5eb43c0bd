package scheduler

import (
	"slices"
	"strings"
)

// isolation refuses nodes that lack a kind of isolation that the swarm requires.
type isolation struct{ c *Core }

func (f isolation) passes(n *node) bool { return len(f.c.missing(n)) == 0 }
func (isolation) key() string           { return "isolation" }

func (f isolation) refusal(nodes int) string {
	return counted(nodes, "1 node without", "%d nodes without") + " the isolation that the swarm requires (" + f.c.allMissing() + ")"
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

// options refuses nodes that would ignore what is to isolate the task: their program is from before there were such options.
type options struct{}

func (options) passes(n *node) bool { return len(n.api.GetDescription().GetIsolation()) > 0 }
func (options) key() string         { return "options" }

func (options) refusal(nodes int) string {
	return counted(nodes, "1 node too old for the service's security options", "%d nodes too old for the service's security options")
}

func (isolation) name() string { return "isolation" }

func (f isolation) detail(n *node) string {
	return "the node lacks " + strings.Join(f.c.missing(n), ", ")
}

func (isolation) remedy(*node) Remedy { return Remedy{} }

func (options) name() string { return "security options" }

func (options) detail(*node) string { return "the node's program is too old to know them" }

func (options) remedy(n *node) Remedy {
	return Remedy{Text: "upgrade node " + n.label(), cost: costMachine}
}
