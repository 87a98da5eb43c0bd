package scheduler

// storage refuses nodes that can't hold a task to its storage size.
type storage struct{}

func (storage) passes(n *node) bool { return n.api.GetDescription().GetStorageLimits() }
func (storage) key() string         { return "storage" }

func (storage) refusal(nodes int) string {
	return counted(nodes, "1 node whose disk has no project quotas for --storage-size", "%d nodes whose disks have no project quotas for --storage-size")
}

func (storage) name() string { return "storage size" }

func (storage) detail(*node) string { return "the node's disk has no project quotas" }

func (storage) remedy(n *node) Remedy {
	return Remedy{Text: "mount the disk of node " + n.label() + " with project quotas", cost: costMachine}
}
