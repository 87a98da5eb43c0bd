package scheduler

import (
	"slices"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/taskstate"
)

// Change is one piece of news for a Core: exactly one of Node, Task and Cluster is set. The core keeps the objects and changes nothing
// in them.
type Change struct {
	Node *api.Node
	Task *api.Task
	// Cluster says what the swarm requires of nodes.
	Cluster *api.Cluster
	// Deleted says that the object is gone.
	Deleted bool
}

// Decision is about one task that waits for a node.
type Decision struct {
	// Task is the task as the core knew it. It must not be changed.
	Task *api.Task
	// Node is the node that the task goes to, or nil when no node can run it.
	Node *api.Node
	// Generic is what the task gets of the node's generic resources. It must not be changed.
	Generic []*api.GenericResource
	// Reason says why there is no node, or is empty.
	Reason string
}

// Core is the scheduler's view of a cluster, and decides on it. It has no clock, no randomness and no I/O: the same changes
// in the same order give the same decisions.
type Core struct {
	nodes    map[string]*node
	ordered  []*node // by id
	tasks    map[string]*task
	services map[string]*service
	// waiting holds the tasks without a node, by what they need; queue is the same in order of arrival.
	waiting map[groupKey]*group
	queue   []*group
	// images is what nodes say about the platforms of an image, by digest.
	images map[string][]*api.Platform
	// eligible caches which nodes pass the filters that only depend on nodes. Emptied when a node changes.
	eligible map[string][]*node
	scratch  candidates // of rank
	// required is what must isolate containers on every node that gets tasks.
	required []string
	// nodesStale says that images must be made anew, and stale that every group must be tried again.
	nodesStale, stale bool
}

// task is a task that has a node, waits for one, or failed on one.
type task struct {
	api   *api.Task
	node  *node // that it counts on, or nil
	group *group
	need  *need
	// generic is what it has of its node's generic resources.
	generic []*api.GenericResource
	live    bool // counts for spread and max replicas
	holds   bool // counts for resources and ports
	failed  bool // counts as a failure
}

// NewCore returns the view of an empty cluster.
func NewCore() *Core {
	return &Core{
		nodes: map[string]*node{}, tasks: map[string]*task{}, services: map[string]*service{},
		waiting: map[groupKey]*group{}, images: map[string][]*api.Platform{}, eligible: map[string][]*node{},
	}
}

// Step takes in the changes and decides about all tasks that wait and may have a chance now. A decision without a node is
// returned only if its reason is news.
func (c *Core) Step(now time.Time, changes []Change) []Decision {
	c.absorb(changes)
	var decisions []Decision
	for _, g := range c.queue {
		if (g.stale || c.stale) && g.waiting > 0 {
			decisions = append(decisions, c.place(now, g)...)
		}
		g.stale = false
	}
	c.stale = false
	c.queue = slices.DeleteFunc(c.queue, func(g *group) bool {
		if g.waiting > 0 {
			return false
		}
		delete(c.waiting, g.key)
		return true
	})
	return decisions
}

// absorb takes in changes without deciding anything.
func (c *Core) absorb(changes []Change) {
	for _, change := range changes {
		switch {
		case change.Node != nil && change.Deleted:
			c.removeNode(change.Node)
		case change.Node != nil:
			c.putNode(change.Node)
		case change.Task != nil:
			c.putTask(change.Task, change.Deleted)
		case change.Cluster != nil && !slices.Equal(c.required, change.Cluster.GetSpec().GetRequiredIsolation()):
			c.required = change.Cluster.GetSpec().GetRequiredIsolation()
			c.nodesChanged()
		}
	}
	if c.nodesStale {
		c.learnNodes()
	}
}

// reconsider makes every waiting task be tried again.
func (c *Core) reconsider() { c.stale = true }

// putTask replaces what the core knows of a task.
func (c *Core) putTask(t *api.Task, deleted bool) {
	old := c.tasks[t.GetId()]
	fresh := &task{api: t, node: c.nodes[t.GetNodeId()], live: taskstate.Live(t) && !taskstate.Ended(t), holds: taskstate.HoldsNode(t)}
	if old != nil && !deleted && old.group == nil && old.node == fresh.node && old.live == fresh.live && old.holds == fresh.holds {
		old.api = t
		c.noteFailure(old)
		return
	}
	waits := fresh.live && t.GetNodeId() == "" && t.GetStatus().GetState() == api.TaskState_TASK_STATE_PENDING
	kept := !deleted && (waits || fresh.node != nil)
	if kept {
		c.service(t.GetServiceId()).known++ // before forget, which drops what it holds with the last task
	}
	if old != nil {
		fresh.failed = old.failed
		c.release(old)
		c.forget(old)
	}
	if !kept {
		return
	}
	c.tasks[t.GetId()] = fresh
	if waits {
		c.enqueue(fresh)
		return
	}
	c.take(fresh)
	c.noteFailure(fresh)
}

// forget drops a task, and its service with the last one.
func (c *Core) forget(t *task) {
	delete(c.tasks, t.api.GetId())
	s := c.service(t.api.GetServiceId())
	s.known--
	if s.known == 0 {
		delete(c.services, t.api.GetServiceId())
	}
}

// take counts a task on its node.
func (c *Core) take(t *task) {
	if t.node == nil {
		return
	}
	if t.holds {
		if t.need == nil {
			what := needOf(t.api)
			t.need = &what
		}
		t.node.reserve(t.need)
		t.node.claimGeneric(t)
	}
	if t.live {
		t.node.live++
		c.service(t.api.GetServiceId()).live[t.node]++
	}
}

// release undoes take, or takes the task out of its group.
func (c *Core) release(t *task) {
	if t.group != nil {
		t.group.leave(t)
		return
	}
	if t.node == nil {
		return
	}
	if t.holds {
		t.node.free(t.need)
		t.node.releaseGeneric(t)
	}
	if t.live {
		t.node.live--
		c.service(t.api.GetServiceId()).leave(t.node)
	}
	if t.holds || t.live {
		c.reconsider()
	}
}
