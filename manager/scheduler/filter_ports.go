package scheduler

// ports refuses nodes on which a port that the task publishes is in use.
type ports struct{ need *need }

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
