package scheduler

import (
	"fmt"
)

// maxReplicas refuses nodes that have as many live tasks of the service as it may have on one.
type maxReplicas struct {
	c    *Core
	g    *group
	most uint64
}

func (f maxReplicas) passes(n *node) bool {
	s := f.c.services[f.g.key.service]
	return s == nil || uint64(s.live[n]) < f.most
}

func (maxReplicas) refusal(int) string { return "max replicas per node limit exceed" }

func (maxReplicas) name() string { return "max replicas" }

func (f maxReplicas) detail(*node) string {
	return fmt.Sprintf("as many tasks of the service are on the node as may be: %d", f.most)
}

func (f maxReplicas) remedy(*node) Remedy {
	return Remedy{
		Text: fmt.Sprintf("raise --replicas-max-per-node to %d", f.most+1), cost: costNumber,
		Command: fmt.Sprintf("skep service update --replicas-max-per-node %d %s", f.most+1, f.g.name),
	}
}
