package scheduler_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/scheduler"
)

// twin is the scheduler written for clarity alone: it looks at every task of the cluster for every question.
type twin struct {
	nodes map[string]*api.Node
	tasks map[string]*api.Task
}

func (w *twin) tasksOn(node string, counts func(*api.Task) bool) (found []*api.Task) {
	for _, t := range w.tasks {
		if t.GetNodeId() == node && counts(t) {
			found = append(found, t)
		}
	}
	return found
}

func holds(t *api.Task) bool { return t.GetStatus().GetState() <= api.TaskState_TASK_STATE_RUNNING }

func live(t *api.Task) bool {
	return holds(t) && t.GetDesiredState() <= api.TaskState_TASK_STATE_RUNNING
}

func (w *twin) sameService(node string, t *api.Task) int {
	return len(w.tasksOn(node, func(other *api.Task) bool { return live(other) && other.GetServiceId() == t.GetServiceId() }))
}

// refusal says why t cannot go to n, or "".
func (w *twin) refusal(n *api.Node, t *api.Task) string {
	if bound := t.GetBoundNodeId(); bound != "" && bound != n.GetId() {
		return "bound to another node"
	}
	if n.GetStatus().GetState() != api.NodeState_NODE_STATE_READY || n.GetSpec().GetAvailability() != api.Availability_AVAILABILITY_ACTIVE {
		return "not available"
	}
	memory := t.GetSpec().GetResources().GetReservations().GetMemoryBytes()
	for _, other := range w.tasksOn(n.GetId(), holds) {
		memory += other.GetSpec().GetResources().GetReservations().GetMemoryBytes()
		for _, mine := range t.GetEndpoint().GetPorts() {
			for _, theirs := range other.GetEndpoint().GetPorts() {
				if mine.GetPublishedPort() == theirs.GetPublishedPort() {
					return "port in use"
				}
			}
		}
	}
	if t.GetSpec().GetResources().GetReservations().GetMemoryBytes() > 0 && memory > n.GetDescription().GetResources().GetMemoryBytes() {
		return "no memory"
	}
	if len(w.freeIDs(n)) < gpus(t) {
		return "no gpu"
	}
	for _, c := range t.GetSpec().GetPlacement().GetConstraints() {
		want, _ := strings.CutPrefix(c, "node.labels.zone==")
		if n.GetSpec().GetAnnotations().GetLabels()["zone"] != want {
			return "constraint"
		}
	}
	if most := t.GetSpec().GetPlacement().GetMaxReplicas(); most > 0 && uint64(w.sameService(n.GetId(), t)) >= most {
		return "max replicas"
	}
	return ""
}

func gpus(t *api.Task) int {
	n := 0
	for _, r := range t.GetSpec().GetResources().GetReservations().GetGeneric() {
		n += int(r.GetCount())
	}
	return n
}

// freeIDs returns the ids of the node's gpus that no task has, in its order.
func (w *twin) freeIDs(n *api.Node) (ids []string) {
	taken := map[string]bool{}
	for _, t := range w.tasksOn(n.GetId(), holds) {
		for _, r := range t.GetGenericResources() {
			for _, id := range r.GetIds() {
				taken[id] = true
			}
		}
	}
	for _, r := range n.GetDescription().GetResources().GetGeneric() {
		for _, id := range r.GetIds() {
			if !taken[id] {
				ids = append(ids, id)
			}
		}
	}
	return ids
}

// best returns the node that t must go to, or nil.
func (w *twin) best(t *api.Task) *api.Node {
	var candidates []*api.Node
	for _, n := range w.nodes {
		if w.refusal(n, t) == "" {
			candidates = append(candidates, n)
		}
	}
	var labels []string
	for _, preference := range t.GetSpec().GetPlacement().GetPreferences() {
		labels = append(labels, strings.TrimPrefix(preference.GetSpread(), "node.labels."))
	}
	return w.pick(t, candidates, slices.Collect(maps.Values(w.nodes)), labels)
}

// pick returns the best of candidates, which are among all nodes that have the same values of the labels before labels.
func (w *twin) pick(t *api.Task, candidates, all []*api.Node, labels []string) (best *api.Node) {
	if len(labels) == 0 {
		for _, n := range candidates {
			if best == nil || w.rank(n, t) < w.rank(best, t) {
				best = n
			}
		}
		return best
	}
	key := ""
	for _, like := range candidates {
		same := func(n *api.Node) bool {
			mine, has := like.GetSpec().GetAnnotations().GetLabels()[labels[0]]
			theirs, have := n.GetSpec().GetAnnotations().GetLabels()[labels[0]]
			return mine == theirs && has == have
		}
		alike, tasks := only(all, same), 0
		for _, n := range alike {
			tasks += w.sameService(n.GetId(), t)
		}
		n := w.pick(t, only(candidates, same), alike, labels[1:])
		if k := fmt.Sprintf("%6d %s", tasks, w.rank(n, t)); best == nil || k < key {
			best, key = n, k
		}
	}
	return best
}

func only(nodes []*api.Node, keep func(*api.Node) bool) (kept []*api.Node) {
	for _, n := range nodes {
		if keep(n) {
			kept = append(kept, n)
		}
	}
	return kept
}

func (w *twin) rank(n *api.Node, t *api.Task) string {
	live := len(w.tasksOn(n.GetId(), live))
	if t.GetSpec().GetPlacement().GetStrategy() != api.PlacementStrategy_PLACEMENT_STRATEGY_BINPACK {
		return fmt.Sprintf("%6d %6d %s", w.sameService(n.GetId(), t), live, n.GetId())
	}
	memory := t.GetSpec().GetResources().GetReservations().GetMemoryBytes()
	for _, other := range w.tasksOn(n.GetId(), holds) {
		memory += other.GetSpec().GetResources().GetReservations().GetMemoryBytes()
	}
	left := 1.0
	if total := n.GetDescription().GetResources().GetMemoryBytes(); total > 0 {
		left -= float64(memory) / float64(total)
	}
	return fmt.Sprintf("%10.6f %6d %s", 10+left, 100_000-live, n.GetId())
}

// check replays decisions, each of which must be the best at its moment, and then looks for tasks that were forgotten.
func (w *twin) check(t *rapid.T, decisions []scheduler.Decision) {
	for _, d := range decisions {
		task := w.tasks[d.Task.GetId()]
		if d.Node == nil {
			continue
		}
		want := w.best(task)
		if want.GetId() != d.Node.GetId() {
			t.Fatalf("task %s: got node %q (%s), want %q", task.GetId(), d.Node.GetId(), w.refusal(d.Node, task), want.GetId())
		}
		if want := w.freeIDs(d.Node)[:gpus(task)]; len(want) > 0 && !slices.Equal(want, d.Generic[0].GetIds()) {
			t.Fatalf("task %s: got gpus %v, want %v", task.GetId(), d.Generic, want)
		}
		assigned := proto.CloneOf(task)
		assigned.GenericResources = d.Generic
		assigned.NodeId, assigned.Status.State = d.Node.GetId(), api.TaskState_TASK_STATE_ASSIGNED
		w.tasks[task.GetId()] = assigned
	}
	for _, task := range w.tasks {
		if !live(task) || task.GetNodeId() != "" {
			continue
		}
		if n := w.best(task); n != nil {
			t.Fatalf("task %s has no node, but %s can run it", task.GetId(), n.GetId())
		}
		for _, d := range decisions {
			if d.Task.GetId() == task.GetId() && !strings.HasPrefix(d.Reason, "no suitable node") {
				t.Fatalf("task %s has no node, and the reason %q", task.GetId(), d.Reason)
			}
		}
	}
}

func (w *twin) change(t *rapid.T) scheduler.Change {
	ids := slices.Sorted(maps.Keys(w.tasks))
	switch action := rapid.IntRange(0, 9).Draw(t, "action"); {
	case action < 3:
		n := drawNode(t)
		w.nodes[n.GetId()] = n
		return scheduler.Change{Node: n}
	case action < 7 || len(ids) == 0:
		task := drawTask(t, len(w.tasks))
		w.tasks[task.GetId()] = task
		return scheduler.Change{Task: task}
	default:
		task := proto.CloneOf(w.tasks[rapid.SampledFrom(ids).Draw(t, "task")])
		switch {
		case action == 9:
			delete(w.tasks, task.GetId())
			return scheduler.Change{Task: task, Deleted: true}
		case action == 8 && task.GetNodeId() != "":
			task.Status.State = api.TaskState_TASK_STATE_COMPLETE
		default:
			task.DesiredState = api.TaskState_TASK_STATE_SHUTDOWN
		}
		w.tasks[task.GetId()] = task
		return scheduler.Change{Task: task}
	}
}

func drawNode(t *rapid.T) *api.Node {
	settings := map[string]string{
		"memory": fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "memory")),
		"label":  "zone:" + rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "zone"),
	}
	if rack := rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, "rack"); rack != "" {
		settings["label"] += ",rack:" + rack
	}
	if ids := rapid.SampledFrom([]string{"", "", "a", "a,b", "b,c,d"}).Draw(t, "ids"); ids != "" {
		settings["gpu"] = ids
	}
	if flag := rapid.SampledFrom([]string{"", "", "down", "drain", "pause"}).Draw(t, "flag"); flag != "" {
		settings[flag] = ""
	}
	return parseNode(fmt.Sprintf("n%d", rapid.IntRange(1, 5).Draw(t, "node")), settings)
}

// drawTask returns a task of one of a few services. Those of one of them have different constraints.
func drawTask(t *rapid.T, number int) *api.Task {
	service := rapid.IntRange(1, 9).Draw(t, "service")
	settings := map[string]string{"service": fmt.Sprintf("s%d", service)}
	switch service {
	case 1:
		settings["memory"] = "5"
	case 2:
		settings["memory"] = "2"
		settings["constraint"] = "node.labels.zone==" + rapid.SampledFrom([]string{"a", "b"}).Draw(t, "constraint")
	case 3:
		settings["max"] = "2"
	case 4:
		settings["port"] = "80"
	case 5:
		settings["memory"] = "1"
		settings["spread"] = "node.labels.zone,node.labels.rack"
	case 6:
		settings["memory"] = "3"
		settings["strategy"] = "binpack"
	case 9:
		settings["generic"] = fmt.Sprintf("gpu:%d", rapid.IntRange(1, 2).Draw(t, "gpus"))
	case 8:
		settings["bound"] = fmt.Sprintf("n%d", rapid.IntRange(1, 5).Draw(t, "bound"))
		settings["memory"] = "3"
	case 7:
		settings["strategy"] = "binpack"
		settings["spread"] = "node.labels.rack"
	}
	return parseTask(fmt.Sprintf("t%d-%d", number, rapid.IntRange(0, 1<<30).Draw(t, "id")), settings)
}

// drop undoes some decisions, as the loop does with those that the store refuses, and returns what the core is told of them.
func (w *twin) drop(t *rapid.T, decisions []scheduler.Decision, before map[string]*api.Task) (changes []scheduler.Change) {
	if rapid.IntRange(0, 3).Draw(t, "drops") > 0 {
		return nil
	}
	for _, d := range decisions {
		if id := d.Task.GetId(); d.Node != nil && rapid.Bool().Draw(t, "drop") {
			w.tasks[id] = before[id]
			changes = append(changes, scheduler.Change{Task: before[id]})
		}
	}
	return changes
}

// explains asks about a task that is not there: exactly the nodes that would take it have no refusal, and the first one is the one that it
// would go to. It must not change what the core decides afterwards.
func (w *twin) explains(t *rapid.T, core *scheduler.Core) {
	if rapid.IntRange(0, 3).Draw(t, "explain") > 0 {
		return
	}
	task := drawTask(t, 0)
	verdicts, remedies := core.Explain(time.Unix(0, 0), task)
	best := w.best(task)
	for i, v := range verdicts {
		want := w.refusal(v.Node, task)
		if (len(v.Refusals) == 0) != (want == "") {
			t.Fatalf("node %s: refused by %v, want %q", v.Node.GetId(), v.Refusals, want)
		}
		if i == 0 && best != nil && v.Node.GetId() != best.GetId() {
			t.Fatalf("node %s comes first, want %s", v.Node.GetId(), best.GetId())
		}
	}
	if best != nil && (len(verdicts) == 0 || remedies != nil) {
		t.Fatalf("node %s takes the task, got verdicts %v and remedies %v", best.GetId(), verdicts, remedies)
	}
}

// TestStep_DecidesAsTheTwinDoes: every decision is legal (I13) and the best of its moment, and no task that could run waits.
func TestStep_DecidesAsTheTwinDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &twin{nodes: map[string]*api.Node{}, tasks: map[string]*api.Task{}}
		core := scheduler.NewCore()
		var dropped []scheduler.Change
		for range rapid.IntRange(1, 12).Draw(t, "steps") {
			changes := dropped
			for range rapid.IntRange(0, 8).Draw(t, "changes") {
				changes = append(changes, w.change(t))
			}
			decisions := core.Step(time.Unix(0, 0), changes)
			before := maps.Clone(w.tasks)
			w.check(t, decisions)
			w.explains(t, core)
			dropped = w.drop(t, decisions, before)
			if len(dropped) == 0 && rapid.Bool().Draw(t, "echo") {
				// The store tells what was decided.
				changes = nil
				for _, d := range decisions {
					changes = append(changes, scheduler.Change{Task: w.tasks[d.Task.GetId()]})
				}
				w.check(t, core.Step(time.Unix(0, 0), changes))
			}
		}
	})
}

// TestStep_ANodeMoreUnschedulesNothing: whatever has a node without it has one with it.
func TestStep_ANodeMoreUnschedulesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var few []scheduler.Change
		seen := map[string]bool{}
		for range rapid.IntRange(0, 4).Draw(t, "nodes") {
			n := drawNode(t)
			seen[n.GetId()] = true
			few = append(few, scheduler.Change{Node: n})
		}
		for i := range rapid.IntRange(0, 12).Draw(t, "tasks") {
			// Of one kind: between kinds that compete, a further node may change which of them wins.
			task := parseTask(fmt.Sprintf("t%d", i), map[string]string{"memory": "5", "max": "3", "constraint": "node.labels.zone==a"})
			few = append(few, scheduler.Change{Task: task})
		}
		more := few
		if n := drawNode(t); !seen[n.GetId()] {
			more = append([]scheduler.Change{{Node: n}}, few...)
		}
		if a, b := placed(few), placed(more); b < a {
			t.Fatalf("%d tasks were placed, with a node more only %d", a, b)
		}
	})
}

func placed(changes []scheduler.Change) (n int) {
	for _, d := range scheduler.NewCore().Step(time.Unix(0, 0), changes) {
		if d.Node != nil {
			n++
		}
	}
	return n
}

func BenchmarkStep(b *testing.B) {
	for _, size := range []struct{ nodes, services, tasks int }{
		{1000, 1, 1000}, {1000, 1, 10_000}, {1000, 100, 100}, {1000, 10_000, 1}, {1000, 1, 100_000},
	} {
		b.Run(fmt.Sprintf("nodes=%d/services=%d/tasks=%d", size.nodes, size.services, size.tasks), func(b *testing.B) {
			var nodes, tasks []scheduler.Change
			for i := range size.nodes {
				n := parseNode(fmt.Sprintf("n%04d", i), map[string]string{"memory": "1000000", "label": "zone:a"})
				nodes = append(nodes, scheduler.Change{Node: n})
			}
			for s := range size.services {
				for i := range size.tasks {
					settings := map[string]string{"service": fmt.Sprint("s", s), "memory": "1", "constraint": "node.labels.zone==a"}
					tasks = append(tasks, scheduler.Change{Task: parseTask(fmt.Sprintf("t%d-%d", s, i), settings)})
				}
			}
			for b.Loop() {
				core := scheduler.NewCore()
				core.Step(time.Unix(0, 0), nodes)
				if got := len(core.Step(time.Unix(0, 0), tasks)); got != len(tasks) {
					b.Fatalf("%d decisions about %d tasks", got, len(tasks))
				}
			}
			b.ReportMetric(float64(len(tasks)*b.N)/b.Elapsed().Seconds(), "tasks/s")
		})
	}
}
