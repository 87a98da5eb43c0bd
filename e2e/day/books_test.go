package day

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/skep-io/skep/api"
)

// books are what the machines know of what runs on them: the truth, whatever managers believe. Each entry is checked as it is made.
type books struct {
	world *world

	mu sync.Mutex
	// The fields below are guarded by mu.
	running map[string]*process // by task
	// out are the times in which a machine could not be reached, as far as the nemesis had a hand in it; the last one may go on.
	out map[string][]span
	// specs are what people wanted of nodes, by id and in order of time.
	specs map[string][]*wanted
	// done counts the ends of jobs' tasks that were good, while the machine could be reached.
	done map[place]int
	// starts counts processes, so that a day in which nothing happened is noticed.
	starts int
}

// process is one that runs.
type process struct {
	task    *api.Task
	machine *machine
	place   place
	since   time.Time
}

// place is where there is to be one: a slot, or for what runs on every node a node.
type place struct {
	service, node string
	slot, version uint64 // version of jobs only: each iteration runs all slots
}

type span struct{ from, to time.Time }

// wanted is what people wanted of a node from some time between began and done on; done is zero while nobody told them that it is so.
type wanted struct {
	began, done time.Time
	spec        *api.NodeSpec
}

func newBooks(w *world) *books {
	return &books{
		world: w, running: map[string]*process{}, out: map[string][]span{}, specs: map[string][]*wanted{}, done: map[place]int{},
	}
}

func placeOf(t *api.Task) place {
	p := place{service: t.GetServiceId(), slot: t.GetSlot()}
	if t.GetBoundNodeId() != "" {
		p.slot, p.node = 0, t.GetBoundNodeId()
	}
	if behaviour(t) == "job" {
		p.version = t.GetSpecVersion()
	}
	return p
}

// unreachable notes that a machine can't be reached from now on, and reachable that it can again.
func (b *books) unreachable(m *machine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	spans := b.out[m.name]
	if len(spans) == 0 || !spans[len(spans)-1].to.IsZero() {
		b.out[m.name] = append(spans, span{from: time.Now()})
	}
}

func (b *books) reachable(m *machine) {
	b.mu.Lock()
	defer b.mu.Unlock()
	spans := b.out[m.name]
	if len(spans) > 0 && spans[len(spans)-1].to.IsZero() {
		spans[len(spans)-1].to = time.Now()
	}
}

// outSince reports whether a machine could not be reached at any time since. b.mu is held.
func (b *books) outSince(machine string, since time.Time) bool {
	return slices.ContainsFunc(b.out[machine], func(s span) bool { return s.to.IsZero() || s.to.After(since) })
}

// heard takes in what managers say of a node: one is down only if its machine was out of reach not long ago.
func (b *books) heard(machine string, e *api.Event) {
	const notLong = time.Minute
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := e.GetTime().AsTime(); e.GetAttributes()["state.new"] == "down" && !b.outSince(machine, at.Add(-notLong)) {
		b.world.violated("%s is said to be down since %s, and could be reached", machine, b.world.at(at))
	}
}

// started enters a process.
func (b *books) started(m *machine, t *api.Task) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.starts++
	p := &process{task: t, machine: m, place: placeOf(t), since: time.Now()}
	b.checkPlace(p)
	b.checkOwn(p)
	b.running[t.GetId()] = p
	b.checkRoom(m)
}

// checkPlace: one process in a slot, or two where the new one starts first, and more only where one's machine was out of reach: such a
// node goes on by itself, and starts again what a loss of power ended.
func (b *books) checkPlace(p *process) {
	if b.outSince(p.machine.name, p.since) {
		return
	}
	most := 1
	if startsFirst(p.task.GetServiceName()) && len(p.task.GetEndpoint().GetPorts()) == 0 {
		most = 2
	}
	var others []string
	for _, o := range b.running {
		if o.place == p.place && !b.outSince(o.machine.name, o.since) {
			others = append(others, fmt.Sprintf("%s on %s since %s", o.task.GetId(), o.machine.name, b.world.at(o.since)))
		}
	}
	if len(others) >= most {
		slices.Sort(others)
		b.world.violated("I5: task %s of %s starts on %s in slot %d, where %v run still", p.task.GetId(), p.task.GetServiceName(), p.machine.name, p.place.slot, others)
	}
}

// checkOwn: what a task has alone on its machine, its ports and devices, no other one has.
func (b *books) checkOwn(p *process) {
	own := map[string]bool{}
	for _, what := range belongings(p.task) {
		own[what] = true
	}
	if reserved := len(p.task.GetSpec().GetResources().GetReservations().GetGeneric()); reserved != len(own)-len(p.task.GetEndpoint().GetPorts()) {
		b.world.violated("task %s of %s has reserved %d devices, and has %v", p.task.GetId(), p.task.GetServiceName(), reserved, own)
	}
	for _, o := range b.running {
		if o.machine != p.machine {
			continue
		}
		for _, what := range belongings(o.task) {
			if own[what] {
				b.world.violated("I12: tasks %s and %s on %s both have %s", o.task.GetId(), p.task.GetId(), p.machine.name, what)
			}
		}
	}
}

// belongings are the ports and devices of a task.
func belongings(t *api.Task) (all []string) {
	for _, port := range t.GetEndpoint().GetPorts() {
		all = append(all, fmt.Sprintf("port %d", port.GetPublishedPort()))
	}
	for _, r := range t.GetGenericResources() {
		for _, id := range r.GetIds() {
			all = append(all, "device "+id)
		}
	}
	return all
}

// checkRoom: what runs on a machine fits it.
func (b *books) checkRoom(m *machine) {
	var cpus, memory int64
	for _, p := range b.running {
		if p.machine == m {
			reserved := p.task.GetSpec().GetResources().GetReservations()
			cpus += reserved.GetNanoCpus()
			memory += reserved.GetMemoryBytes()
		}
	}
	if cpus > nodeCPUs || memory > nodeMemory {
		b.world.violated("I13: the processes on %s have reserved %d of %d nano CPUs and %d of %d bytes", m.name, cpus, int64(nodeCPUs), memory, int64(nodeMemory))
	}
}

// ended closes the entry of a process, which ended well or not.
func (b *books) ended(task string, well bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.running[task]
	delete(b.running, task)
	if !well || p.place.version == 0 || p.task.GetDesiredState() != api.TaskState_TASK_STATE_RUNNING || b.outSince(p.machine.name, p.since) {
		return
	}
	b.done[p.place]++
	if n := b.done[p.place]; n > 1 {
		b.world.violated("slot %d of iteration %d of job %s ended well %d times", p.place.slot, p.place.version, p.task.GetServiceName(), n)
	}
}

// intend notes what people are about to want of a node; settle says that they were told it is so.
func (b *books) intend(node string, spec *api.NodeSpec) (settle func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := &wanted{began: time.Now(), spec: spec}
	b.specs[node] = append(b.specs[node], w)
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		w.done = time.Now()
	}
}

// assigned checks the choice of a node when it arrives there: at the time of the choice the node was one that takes tasks, and met the
// constraints (I13).
func (b *books) assigned(m *machine, t *api.Task) {
	if t.GetStatus().GetState() != api.TaskState_TASK_STATE_ASSIGNED {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	at := t.GetStatus().GetTimestamp().AsTime()
	for _, spec := range b.wantedAt(m, at) {
		if spec.GetAvailability() == api.Availability_AVAILABILITY_ACTIVE && fits(t.GetSpec(), spec) {
			return
		}
	}
	b.world.violated("I13: task %s of %s was put on %s at %s, which did not take it: it was to be %v, and the task's place %v",
		t.GetId(), t.GetServiceName(), m.name, b.world.at(at), b.wantedAt(m, at), t.GetSpec().GetPlacement().GetConstraints())
}

// wantedAt is what people wanted of a machine at some time: more than one answer while they changed it. b.mu is held.
func (b *books) wantedAt(m *machine, at time.Time) (specs []*api.NodeSpec) {
	history := b.specs[m.id()]
	for i, w := range history {
		replaced := slices.ContainsFunc(history[i+1:], func(later *wanted) bool { return !later.done.IsZero() && later.done.Before(at) })
		if !replaced && !at.Before(w.began) {
			specs = append(specs, w.spec)
		}
	}
	return specs
}

// zoneLabel is the node's label that services of the day may want.
const zoneLabel = "zone"

// fits reports whether a node of a spec meets the constraints of a task, all of which are about its zone.
func fits(t *api.TaskSpec, node *api.NodeSpec) bool {
	return !slices.ContainsFunc(t.GetPlacement().GetConstraints(), func(c string) bool {
		return c != "node.labels."+zoneLabel+"=="+node.GetAnnotations().GetLabels()[zoneLabel]
	})
}

// on returns the tasks whose processes run on a machine.
func (b *books) on(m *machine) (tasks []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, p := range b.running {
		if p.machine == m {
			tasks = append(tasks, id)
		}
	}
	slices.Sort(tasks)
	return tasks
}

// count is how many processes were started.
func (b *books) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.starts
}
