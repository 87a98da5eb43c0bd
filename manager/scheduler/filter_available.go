package scheduler

// available refuses nodes that are down, paused or drained.
type available struct{}

func (available) passes(n *node) bool { return n.available }
func (available) key() string         { return "available" }

func (available) refusal(nodes int) string {
	return counted(nodes, "1 node not available for new tasks", "%d nodes not available for new tasks")
}
