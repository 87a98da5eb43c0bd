package scheduler

import (
	"slices"
	"time"

	"github.com/skep-io/skep/api"
)

// A node is faulty for a service after that many failures within that time, as in Swarm.
const (
	faultyAfter  = 5
	faultyWindow = 5 * time.Minute
)

// service is what the core knows of a service's tasks.
type service struct {
	known    int // tasks in Core.tasks
	live     map[*node]int
	failures map[*node]*failures
}

// failures are the last ends of tasks of one version of a service on one node.
type failures struct {
	version uint64
	times   []time.Time // oldest first, at most faultyAfter
}

func (c *Core) service(id string) *service {
	s := c.services[id]
	if s == nil {
		s = &service{live: map[*node]int{}, failures: map[*node]*failures{}}
		c.services[id] = s
	}
	return s
}

func (s *service) leave(n *node) {
	s.live[n]--
	if s.live[n] == 0 {
		delete(s.live, n)
	}
}

// noteFailure remembers that a task failed on its node, once.
func (c *Core) noteFailure(t *task) {
	state := t.api.GetStatus().GetState()
	if t.failed || t.node == nil || state != api.TaskState_TASK_STATE_FAILED && state != api.TaskState_TASK_STATE_REJECTED {
		return
	}
	t.failed = true
	s := c.service(t.api.GetServiceId())
	f := s.failures[t.node]
	if f == nil || f.version < t.api.GetSpecVersion() {
		f = &failures{version: t.api.GetSpecVersion()}
		s.failures[t.node] = f
	}
	if f.version > t.api.GetSpecVersion() {
		return
	}
	f.times = append(f.times, t.api.GetStatus().GetTimestamp().AsTime())
	slices.SortFunc(f.times, time.Time.Compare)
	f.times = f.times[max(len(f.times)-faultyAfter, 0):]
}

// faulty reports whether a node is to be avoided by a version of a service.
func (s *service) faulty(now time.Time, n *node, version uint64) bool {
	f := s.failures[n]
	return f != nil && f.version == version && len(f.times) == faultyAfter && now.Sub(f.times[0]) < faultyWindow
}
