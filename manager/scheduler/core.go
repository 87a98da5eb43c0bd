package scheduler

import (
	"slices"
	"strings"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/constraint"
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
	// imagesStale says that images must be made anew.
	imagesStale bool
}

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

// A node is faulty for a service after that many failures within that time, as in Swarm.
const (
	faultyAfter  = 5
	faultyWindow = 5 * time.Minute
)

// task is a task that has a node, waits for one, or failed on one.
type task struct {
	api    *api.Task
	node   *node // that it counts on, or nil
	group  *group
	live   bool // counts for spread and max replicas
	holds  bool // counts for resources and ports
	failed bool // counts as a failure
}

// groupKey names tasks that need the same. Tasks of one version need not: a change of placement that asks for no new tasks
// leaves the version as it is.
type groupKey struct {
	service     string
	specVersion uint64
	need        string
}

// group is the tasks that wait and need the same.
type group struct {
	key         groupKey
	tasks       []*task // in order of arrival
	constraints constraint.Set
	// granted are the constraints of the tasks' grants, which grants names.
	granted constraint.Set
	grants  string
	need    need
	// stale says that something changed since the group was tried last.
	stale bool
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
	if c.imagesStale {
		c.learnImages()
	}
	var decisions []Decision
	for _, g := range c.queue {
		if g.stale && len(g.tasks) > 0 {
			decisions = append(decisions, c.place(now, g)...)
		}
		g.stale = false
	}
	c.queue = slices.DeleteFunc(c.queue, func(g *group) bool {
		if len(g.tasks) > 0 {
			return false
		}
		delete(c.waiting, g.key)
		return true
	})
	return decisions
}

// reconsider makes every waiting task be tried again.
func (c *Core) reconsider() {
	for _, g := range c.queue {
		g.stale = true
	}
}

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

func (c *Core) enqueue(t *task) {
	what := needOf(t.api)
	key := groupKey{t.api.GetServiceId(), t.api.GetSpecVersion(), what.key(slices.Concat(t.api.GetSpec().GetPlacement().GetConstraints(), constraint.OfGrants(t.api.GetGrants())))}
	g := c.waiting[key]
	if g == nil {
		g = newGroup(key, t.api, what)
		c.waiting[key] = g
		c.queue = append(c.queue, g)
	}
	g.tasks = append(g.tasks, t)
	g.stale = true
	t.group = g
}

func newGroup(key groupKey, t *api.Task, what need) *group {
	g := &group{key: key, need: what}
	set, err := constraint.Parse(t.GetSpec().GetPlacement().GetConstraints())
	if err != nil {
		// The server refuses such a spec; a task that got here nevertheless must not run anywhere.
		g.need.nowhere = true
	}
	g.constraints = set
	if g.granted, err = constraint.Parse(constraint.OfGrants(t.GetGrants())); err != nil {
		g.need.nowhere = true
	}
	var names []string
	for _, grant := range t.GetGrants() {
		if len(grant.GetSpec().GetNodeLabels()) > 0 {
			names = append(names, grant.GetSpec().GetAnnotations().GetName())
		}
	}
	g.grants = strings.Join(names, ", ")
	return g
}

// take counts a task on its node.
func (c *Core) take(t *task) {
	if t.node == nil {
		return
	}
	if t.holds {
		t.node.reserve(needOf(t.api))
	}
	if t.live {
		t.node.live++
		c.service(t.api.GetServiceId()).live[t.node]++
	}
}

// release undoes take, or takes the task out of its group.
func (c *Core) release(t *task) {
	if t.group != nil {
		t.group.tasks = slices.DeleteFunc(t.group.tasks, func(other *task) bool { return other == t })
		t.group = nil
		return
	}
	if t.node == nil {
		return
	}
	if t.holds {
		t.node.free(needOf(t.api))
	}
	if t.live {
		t.node.live--
		c.leaveService(t)
	}
	if t.holds || t.live {
		c.reconsider()
	}
}

func (c *Core) service(id string) *service {
	s := c.services[id]
	if s == nil {
		s = &service{live: map[*node]int{}, failures: map[*node]*failures{}}
		c.services[id] = s
	}
	return s
}

func (c *Core) leaveService(t *task) {
	s := c.service(t.api.GetServiceId())
	s.live[t.node]--
	if s.live[t.node] == 0 {
		delete(s.live, t.node)
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
