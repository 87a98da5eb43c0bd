package scheduler

import (
	"cmp"
	"encoding/binary"
	"slices"
	"strings"

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
	live                   int
}

// portKey is a port of a node.
type portKey struct {
	protocol api.Protocol
	number   uint32
}

// need is what a task takes up, and where it can run at all.
type need struct {
	cpus, memory int64
	ports        []portKey
	maxReplicas  uint64
	// digest is the pinned image's, or empty.
	digest string
	// options says that the task is to be isolated otherwise than by default.
	options bool
	// storage says that what the task writes is to be bounded.
	storage bool
	// bound is the id of the only node that will do, or empty.
	bound string
	// nowhere says that no node will do.
	nowhere bool
}

func needOf(t *api.Task) need {
	reserved := t.GetSpec().GetResources().GetReservations()
	n := need{
		cpus: max(reserved.GetNanoCpus(), 0), memory: max(reserved.GetMemoryBytes(), 0),
		maxReplicas: t.GetSpec().GetPlacement().GetMaxReplicas(), digest: digestOf(t.GetSpec().GetContainer().GetImage()),
		options: t.GetSpec().GetContainer().GetPrivileges() != nil, storage: t.GetSpec().GetContainer().GetStorageSizeBytes() > 0,
		bound: t.GetBoundNodeId(),
	}
	for _, port := range t.GetEndpoint().GetPorts() {
		n.ports = append(n.ports, portKey{port.GetProtocol(), cmp.Or(port.GetPublishedPort(), port.GetTargetPort())})
	}
	return n
}

// key returns a text that is the same for equal needs with equal constraints, and for no others.
func (n need) key(constraints []string) string {
	var key []byte
	for _, number := range []uint64{uint64(n.cpus), uint64(n.memory), n.maxReplicas, uint64(len(n.ports))} {
		key = binary.AppendUvarint(key, number)
	}
	for _, port := range n.ports {
		key = binary.AppendUvarint(binary.AppendUvarint(key, uint64(port.protocol)), uint64(port.number))
	}
	if n.options {
		key = append(key, 1)
	}
	if n.storage {
		key = append(key, 2)
	}
	for _, text := range append([]string{n.digest, n.bound}, constraints...) {
		key = append(binary.AppendUvarint(key, uint64(len(text))), text...)
	}
	return string(key)
}

// digestOf returns the digest of a pinned reference, name:tag@digest or a digest alone, or "".
func digestOf(image string) string {
	_, digest, found := strings.Cut(image, "@")
	if !found && strings.HasPrefix(image, "sha256:") {
		return image
	}
	return digest
}

func (n *node) reserve(what need) {
	n.takenCPUs += what.cpus
	n.takenMemory += what.memory
	for _, port := range what.ports {
		n.ports[port]++
	}
}

func (n *node) free(what need) {
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
}

// putNode replaces what the core knows of a node. Its tasks stay counted.
func (c *Core) putNode(a *api.Node) {
	n := c.nodes[a.GetId()]
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
	c.imagesStale = true
	c.reconsider()
}

// learnImages collects which platforms images have.
func (c *Core) learnImages() {
	c.imagesStale = false
	clear(c.images)
	for _, n := range c.ordered {
		for _, image := range n.api.GetDescription().GetImages() {
			if image.GetPlatform().GetOs() != "" {
				c.images[image.GetDigest()] = append(c.images[image.GetDigest()], image.GetPlatform())
			}
		}
	}
}
