package scheduler

import (
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// node is a node, and what its tasks take up.
type node struct {
	api       *api.Node
	available bool
	// total and taken are nano CPUs and bytes of memory.
	totalCPUs, totalMemory int64
	takenCPUs, takenMemory int64
	ports                  map[portKey]int
	generic                map[string]*pool
	live                   int
	// place is the node's in Core.ordered, while a Step decides.
	place int
}

func (n *node) reserve(what *need) {
	n.takenCPUs += what.cpus
	n.takenMemory += what.memory
	for _, port := range what.ports {
		n.ports[port]++
	}
}

func (n *node) free(what *need) {
	n.takenCPUs -= what.cpus
	n.takenMemory -= what.memory
	for _, port := range what.ports {
		n.ports[port]--
		if n.ports[port] == 0 {
			delete(n.ports, port)
		}
	}
}

func (n *node) set(a *api.Node) {
	n.api = a
	n.available = a.GetStatus().GetState() == api.NodeState_NODE_STATE_READY &&
		a.GetSpec().GetAvailability() == api.Availability_AVAILABILITY_ACTIVE
	n.totalCPUs = a.GetDescription().GetResources().GetNanoCpus()
	n.totalMemory = a.GetDescription().GetResources().GetMemoryBytes()
	n.setGeneric(a.GetDescription().GetResources().GetGeneric())
}

// putNode replaces what the core knows of a node. Its tasks stay counted.
func (c *Core) putNode(a *api.Node) {
	n := c.nodes[a.GetId()]
	if n != nil && sameForTasks(n.api, a) {
		n.api = a
		return
	}
	if n == nil {
		n = &node{ports: map[portKey]int{}}
		n.set(a)
		c.nodes[a.GetId()] = n
		at, _ := slices.BinarySearchFunc(c.ordered, a.GetId(), func(n *node, id string) int { return strings.Compare(n.api.GetId(), id) })
		c.ordered = slices.Insert(c.ordered, at, n)
	} else {
		n.set(a)
	}
	c.nodesChanged()
}

// sameForTasks reports whether a node's change is none for placement: that its data key or certificate was renewed is not.
func sameForTasks(old, fresh *api.Node) bool {
	return old.GetStatus().GetState() == fresh.GetStatus().GetState() && old.GetStatus().GetAddress() == fresh.GetStatus().GetAddress() &&
		old.GetRole() == fresh.GetRole() && proto.Equal(old.GetSpec(), fresh.GetSpec()) && proto.Equal(old.GetDescription(), fresh.GetDescription())
}

// removeNode forgets a node. Tasks that were on it keep pointing to it, and nobody else does.
func (c *Core) removeNode(a *api.Node) {
	n := c.nodes[a.GetId()]
	if n == nil {
		return
	}
	delete(c.nodes, a.GetId())
	c.ordered = slices.DeleteFunc(c.ordered, func(other *node) bool { return other == n })
	for _, s := range c.services {
		delete(s.failures, n)
	}
	c.nodesChanged()
}

func (c *Core) nodesChanged() {
	clear(c.eligible)
	c.nodesStale = true
	c.reconsider()
}

// learnNodes brings up to date what is known of all nodes together: their order, and which platforms images have.
func (c *Core) learnNodes() {
	c.nodesStale = false
	clear(c.images)
	for i, n := range c.ordered {
		n.place = i
		for _, image := range n.api.GetDescription().GetImages() {
			if image.GetPlatform().GetOs() != "" {
				c.images[image.GetDigest()] = append(c.images[image.GetDigest()], image.GetPlatform())
			}
		}
	}
}

// label is what people call the node: its host name, if that is a plain word, else its id. It may become part of a command.
func (n *node) label() string {
	if name := n.api.GetDescription().GetHostname(); plainName.MatchString(name) {
		return name
	}
	return n.api.GetId()
}

// plainName is what needs no quotes in a shell.
var plainName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
