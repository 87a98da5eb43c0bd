package scheduler

// resources refuses nodes on which less is left than the task reserves.
type resources struct{ need *need }

func (f resources) passes(n *node) bool {
	if f.need.cpus > 0 && f.need.cpus > n.totalCPUs-n.takenCPUs || f.need.memory > 0 && f.need.memory > n.totalMemory-n.takenMemory {
		return false
	}
	for _, r := range f.need.generic {
		if r.GetCount() > n.generic[r.GetKind()].free() {
			return false
		}
	}
	return true
}

func (resources) refusal(nodes int) string {
	return counted(nodes, "insufficient resources on 1 node", "insufficient resources on %d nodes")
}
