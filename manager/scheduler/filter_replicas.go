package scheduler

// maxReplicas refuses nodes that have as many live tasks of the service as it may have on one.
type maxReplicas struct {
	c       *Core
	service string
	most    uint64
}

func (f maxReplicas) passes(n *node) bool {
	s := f.c.services[f.service]
	return s == nil || uint64(s.live[n]) < f.most
}

func (maxReplicas) refusal(int) string { return "max replicas per node limit exceed" }
