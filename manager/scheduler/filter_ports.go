package scheduler

import (
	"fmt"
	"slices"
	"strings"
)

// ports refuses nodes on which a port that the task publishes is in use.
type ports struct {
	c       *Core
	need    *need
	service string
}

func (f ports) passes(n *node) bool {
	for _, port := range f.need.ports {
		if n.ports[port] > 0 {
			return false
		}
	}
	return true
}

func (ports) refusal(nodes int) string {
	return counted(nodes, "host-mode port already in use on 1 node", "host-mode port already in use on %d nodes")
}

func (ports) name() string { return "ports" }

// holders returns who has the ports on a node.
func (f ports) holders(n *node) (taken, services []string) {
	for _, port := range f.need.ports {
		if n.ports[port] > 0 {
			taken = append(taken, fmt.Sprintf("%d/%s", port.number, word(port.protocol, "PROTOCOL_")))
		}
	}
	for _, t := range f.c.tasks {
		if t.node != n || !t.holds || t.need == nil || slices.Contains(services, t.api.GetServiceName()) {
			continue
		}
		if slices.ContainsFunc(t.need.ports, func(p portKey) bool { return slices.Contains(f.need.ports, p) }) {
			services = append(services, t.api.GetServiceName())
		}
	}
	slices.Sort(services)
	return taken, services
}

func (f ports) detail(n *node) string {
	taken, services := f.holders(n)
	return "port " + strings.Join(taken, ", ") + " is in use by " + strings.Join(services, ", ")
}

func (f ports) remedy(n *node) Remedy {
	taken, services := f.holders(n)
	if slices.Equal(services, []string{f.service}) { // another port would be in use by its own tasks, too
		return Remedy{Text: "add a node, or let the service have fewer tasks", cost: costMachine}
	}
	return Remedy{Text: "free port " + strings.Join(taken, ", ") + " on node " + n.label() + ", or publish another one", cost: costOther}
}
