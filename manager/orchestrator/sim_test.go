package orchestrator_test

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/orchestrator"
	"github.com/skep-io/skep/manager/orchestrator/global"
	"github.com/skep-io/skep/manager/orchestrator/job"
	"github.com/skep-io/skep/manager/orchestrator/reaper"
	"github.com/skep-io/skep/manager/orchestrator/replicated"
	"github.com/skep-io/skep/manager/orchestrator/restart"
	"github.com/skep-io/skep/manager/orchestrator/update"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/storetest"
)

// world is a cluster whose agents and scheduler are here, and whose orchestrators are the real ones. It checks I5 and I6 on every
// committed change.
type world struct {
	t     testing.TB
	s     *store.Store
	watch *store.Watcher
	tasks map[string]*api.Task
	// excused are tasks on nodes that were lost: they may run on unseen.
	excused map[string]bool
	// completions are the tasks of jobs that ended well, where they were heard of all the time.
	completions map[jobSlot]int
	startFirst  bool
	// refuse says of tasks that their agents reject them, or is nil.
	refuse func(*api.Task) bool
	fail   func(format string, args ...any)
}

// jobSlot is a slot of an iteration of a job. A global one's slot is its node, and has no number here: numbers of nodes that were removed
// are given to others.
type jobSlot struct {
	service, node string
	version, slot uint64
}

func jobSlotOf(t *api.Task) jobSlot {
	if node := t.GetBoundNodeId(); node != "" {
		return jobSlot{service: t.GetServiceId(), version: t.GetSpecVersion(), node: node}
	}
	return jobSlot{service: t.GetServiceId(), version: t.GetSpecVersion(), slot: t.GetSlot()}
}

func newWorld(t testing.TB, fail func(string, ...any), startFirst bool) *world {
	w := &world{
		t: t, s: storetest.New(t), tasks: map[string]*api.Task{}, excused: map[string]bool{}, completions: map[jobSlot]int{}, startFirst: startFirst, fail: fail,
	}
	watch, err := w.s.Watch(context.Background(), 0, object.KindTask, object.KindNode)
	if err != nil {
		t.Fatal(err)
	}
	w.watch = watch
	return w
}

func (w *world) update(fn func(store.Tx) error) {
	if err := w.s.Update(context.Background(), "", fn); err != nil {
		w.fail("update: %v", err)
	}
	w.check()
}

func edit[T store.Object](w *world, id string, change func(T)) {
	w.update(func(tx store.Tx) error { return edited(tx, id, change) })
}

func edited[T store.Object](tx store.Tx, id string, change func(T)) error {
	old, err := store.Get[T](tx, id)
	if err != nil {
		return err
	}
	o := proto.CloneOf(old)
	change(o)
	return tx.Update(o)
}

func all[T store.Object](w *world) []T { return storetest.List[T](w.t, w.s) }

// check looks at every change since it looked last.
func (w *world) check() {
	for {
		batch, ok, err := w.watch.TryNext()
		if err != nil {
			w.fail("watch: %v", err)
		}
		if !ok {
			return
		}
		for _, change := range batch.Changes {
			if n, isNode := change.Object.(*api.Node); isNode {
				w.excuse(n, change.Action)
				continue
			}
			w.checkTask(change)
		}
		w.checkSlots()
	}
}

func (w *world) excuse(n *api.Node, action store.Action) {
	if action != store.ActionDelete && n.GetStatus().GetState() != api.NodeState_NODE_STATE_DOWN {
		return
	}
	for _, t := range w.tasks {
		if t.GetNodeId() == n.GetId() {
			w.excused[t.GetId()] = true
		}
	}
}

// checkTask: states never go down, a task never moves, and nothing is forgotten that may still run (I6).
func (w *world) checkTask(change store.Change) {
	t := change.Object.(*api.Task)
	old := w.tasks[t.GetId()]
	w.tasks[t.GetId()] = t
	w.checkJob(old, t)
	switch {
	case change.Action == store.ActionDelete:
		delete(w.tasks, t.GetId())
		if taskstate.HoldsNode(t) {
			w.fail("task %s was deleted in state %v", t.GetId(), t.GetStatus().GetState())
		}
	case old == nil:
	case t.GetStatus().GetState() < old.GetStatus().GetState() || t.GetDesiredState() < old.GetDesiredState():
		w.fail("task %s went down: from %v, desired %v", t.GetId(), old, t)
	case t.GetBoundNodeId() != "" && t.GetNodeId() != "" && t.GetNodeId() != t.GetBoundNodeId():
		w.fail("task %s is bound to %s, and on %s", t.GetId(), t.GetBoundNodeId(), t.GetNodeId())
	case old.GetNodeId() != "" && t.GetNodeId() != old.GetNodeId():
		w.fail("task %s moved from %s to %s", t.GetId(), old.GetNodeId(), t.GetNodeId())
	}
}

// checkJob: a slot of a job ends well once in each iteration. A task that is to go with its slot counts for nothing: the slot may be
// wanted again later.
func (w *world) checkJob(old, t *api.Task) {
	if t.GetStatus().GetState() != api.TaskState_TASK_STATE_COMPLETE || old.GetStatus().GetState() == api.TaskState_TASK_STATE_COMPLETE ||
		w.excused[t.GetId()] || !taskstate.Kept(t) || !w.isJob(t) {
		return
	}
	place := jobSlotOf(t)
	w.completions[place]++
	if w.completions[place] > 1 {
		w.fail("slot %v ended well %d times", place, w.completions[place])
	}
}

func (w *world) isJob(t *api.Task) bool {
	s, err := find[*api.Service](w, t.GetServiceId())
	return err == nil && taskstate.Job(s.GetSpec())
}

// checkSlots: at most one running task in a slot, two in start-first updates (I5).
func (w *world) checkSlots() {
	running := map[string][]string{}
	for _, t := range w.tasks {
		state := t.GetStatus().GetState()
		if state < api.TaskState_TASK_STATE_STARTING || state > api.TaskState_TASK_STATE_RUNNING || w.excused[t.GetId()] {
			continue
		}
		slot := fmt.Sprint(t.GetServiceId(), ".", t.GetSlot())
		running[slot] = append(running[slot], fmt.Sprintf("%s v%d %v", t.GetId(), t.GetSpecVersion(), t.GetDesiredState()))
	}
	most := 1
	if w.startFirst {
		most = 2
	}
	perJob := map[string]uint64{}
	for slot, tasks := range running {
		service, _, _ := strings.Cut(slot, ".")
		if len(tasks) > most || len(tasks) > 1 && strings.HasPrefix(slot, "job") {
			w.fail("slot %s has running tasks %v", slot, tasks)
		}
		perJob[service]++
	}
	if perJob["job1"] > simConcurrent {
		w.fail("job1 has %d running tasks, of which %d are allowed", perJob["job1"], simConcurrent)
	}
}

// index is the last change's.
func (w *world) index() (index store.Index) {
	err := w.s.View(func(tx store.ReadTx) error { index = tx.Index(); return nil })
	if err != nil {
		w.fail("view: %v", err)
	}
	return index
}

// loop is an orchestrator as its package makes it.
type loop struct {
	name   string
	core   orchestrator.Core
	bySlot bool
}

func loops() []loop {
	return []loop{
		{"replicated", replicated.Step, false},
		{"global", global.Step, false},
		{"job", job.Step, false},
		{"restart", restart.Step, true},
		{"update", update.Step, false},
		{"reaper", reaper.Step, true},
	}
}

// step lets one core decide once about everything, and reports whether it wanted anything.
func (w *world) step(l loop) (changed bool) {
	type key struct {
		service string
		slot    uint64
	}
	var keys []key
	for _, s := range all[*api.Service](w) {
		if !l.bySlot {
			keys = append(keys, key{service: s.GetId()})
		}
	}
	for _, t := range all[*api.Task](w) {
		k := key{service: t.GetServiceId()}
		if l.bySlot {
			k.slot = t.GetSlot()
		}
		if !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	before := w.index()
	for _, k := range keys {
		w.update(func(tx store.Tx) error {
			v, err := orchestrator.ReadView(tx, k.service, k.slot)
			if err != nil {
				return err
			}
			now := time.Now()
			effects, _ := l.core(now, v)
			_, err = orchestrator.Apply(tx, now, v, effects)
			return err
		})
	}
	return w.index() != before
}

// place gives a waiting task a node, as allocator and scheduler would, and reports whether there was one to place.
func (w *world) place(pick func(n int) int) bool {
	var nodes []string
	for _, n := range all[*api.Node](w) {
		if n.GetStatus().GetState() == api.NodeState_NODE_STATE_READY && n.GetSpec().GetAvailability() == api.Availability_AVAILABILITY_ACTIVE {
			nodes = append(nodes, n.GetId())
		}
	}
	for _, t := range all[*api.Task](w) {
		fitting := nodes
		if bound := t.GetBoundNodeId(); bound != "" {
			fitting = slices.DeleteFunc(slices.Clone(nodes), func(id string) bool { return id != bound })
		}
		if t.GetStatus().GetState() < api.TaskState_TASK_STATE_ASSIGNED && taskstate.Live(t) && len(fitting) > 0 {
			edit(w, t.GetId(), func(t *api.Task) {
				t.NodeId = fitting[pick(len(fitting))]
				t.Status = &api.TaskStatus{State: api.TaskState_TASK_STATE_ASSIGNED}
			})
			return true
		}
	}
	return false
}

// progress lets an agent report the next state of one of its tasks; failed ends it. It reports whether there was one.
func (w *world) progress(pick func(n int) int, failed bool) bool {
	ready := map[string]bool{}
	for _, n := range all[*api.Node](w) {
		ready[n.GetId()] = n.GetStatus().GetState() == api.NodeState_NODE_STATE_READY
	}
	type news struct {
		task  string
		state api.TaskState
	}
	var reports []news
	for _, t := range all[*api.Task](w) {
		if next, ok := nextState(t, failed, w.isJob(t)); ok && ready[t.GetNodeId()] {
			reports = append(reports, news{t.GetId(), next})
			if !taskstate.Live(t) && t.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING && w.isJob(t) {
				// It ended before its agent heard that it is to stop.
				reports = append(reports, news{t.GetId(), api.TaskState_TASK_STATE_COMPLETE})
			}
		}
	}
	if len(reports) == 0 {
		return false
	}
	r := reports[pick(len(reports))]
	edit(w, r.task, func(t *api.Task) { report(t, r.state) })
	return true
}

// report is what an agent says of a task.
func report(t *api.Task, state api.TaskState) {
	before := t.GetStatus()
	t.Status = &api.TaskStatus{State: state, Timestamp: timestamppb.New(time.Now()), RunningAt: before.GetRunningAt()}
	switch {
	case state == api.TaskState_TASK_STATE_RUNNING:
		t.Status.RunningAt = cmp.Or(before.GetRunningAt(), t.Status.Timestamp)
		t.Status.Readiness = taskstate.Readiness(t.GetSpec(), before, &api.TaskStatus{
			State: state, Readiness: &api.Readiness{Ready: before.GetState() == state},
		}, time.Now())
	case state > api.TaskState_TASK_STATE_RUNNING:
		t.Status.EndedAt = t.Status.Timestamp
	}
}

// nextState is what an agent does with a task.
func nextState(t *api.Task, failed, job bool) (api.TaskState, bool) {
	state := t.GetStatus().GetState()
	switch {
	case !taskstate.HoldsNode(t):
		return 0, false
	case !taskstate.Live(t):
		return api.TaskState_TASK_STATE_SHUTDOWN, true
	case failed && state == api.TaskState_TASK_STATE_RUNNING:
		return api.TaskState_TASK_STATE_FAILED, true
	case failed && state <= api.TaskState_TASK_STATE_READY:
		return api.TaskState_TASK_STATE_REJECTED, true
	case job && state == api.TaskState_TASK_STATE_RUNNING:
		return api.TaskState_TASK_STATE_COMPLETE, true
	case taskstate.Running(t) && !taskstate.Ready(t):
		return state, true // it gets ready
	case state >= t.GetDesiredState():
		return 0, false
	}
	at := slices.Index(taskstate.States(), state)
	return taskstate.States()[at+1], true
}

func simService(id string, replicas uint64, order api.UpdateOrder, parallelism uint64) *api.Service {
	return &api.Service{Id: id, SpecVersion: 1, Spec: &api.ServiceSpec{
		Annotations: &api.Annotations{Name: id},
		Task:        &api.TaskSpec{Container: &api.ContainerSpec{}, Restart: &api.RestartPolicy{Delay: durationpb.New(time.Second)}},
		Replicated:  &api.ReplicatedService{Replicas: replicas},
		Update:      &api.UpdateConfig{Parallelism: parallelism, Order: order, Delay: durationpb.New(2 * time.Second)},
		Rollback:    &api.UpdateConfig{Parallelism: parallelism, Order: order},
	}}
}

// changeSpec makes the spec of a service another one, as a user does.
func changeSpec(s *api.Service, action api.FailureAction) {
	s.PreviousSpec, s.PreviousSpecVersion, s.RestoredVersion = proto.CloneOf(s.GetSpec()), s.GetSpecVersion(), 0
	s.SpecVersion++
	s.Spec.Task.Container.Image = fmt.Sprint("image of ", s.GetSpecVersion())
	if taskstate.Job(s.GetSpec()) {
		return
	}
	s.Spec.Update.FailureAction = action
	resume(s)
}

// resume starts the update of a service, or goes on with it.
func resume(s *api.Service) {
	s.UpdateStatus = &api.UpdateStatus{State: api.UpdateState_UPDATE_STATE_UPDATING, CountsFrom: timestamppb.New(time.Now())}
}

// checkVersions: what has the spec version of the service has its spec.
func (w *world) checkVersions() {
	for _, s := range all[*api.Service](w) {
		for _, t := range storetest.List[*api.Task](w.t, w.s, store.ByService(s.GetId())) {
			if t.GetSpecVersion() == s.GetSpecVersion() && !proto.Equal(t.GetSpec(), s.GetSpec().GetTask()) {
				w.fail("task %v has the version of service %v, and another spec", t, s)
			}
		}
	}
}

// simConcurrent is how many tasks of simJob may run at once.
const simConcurrent = 2

func simJob(id string, total uint64) *api.Service {
	s := simService(id, 0, api.UpdateOrder_UPDATE_ORDER_STOP_FIRST, 1)
	s.Spec.Replicated, s.Spec.Update = nil, nil
	s.Spec.ReplicatedJob = &api.ReplicatedJob{TotalCompletions: total, MaxConcurrent: simConcurrent}
	return s
}

func globalJob(id string) *api.Service {
	s := simJob(id, 1)
	s.Spec.ReplicatedJob, s.Spec.GlobalJob = nil, &api.GlobalJob{}
	return s
}

// globalService is simService on every node.
func globalService(id string, order api.UpdateOrder, parallelism uint64) *api.Service {
	s := simService(id, 0, order, parallelism)
	s.Spec.Replicated, s.Spec.Global = nil, &api.GlobalService{}
	return s
}

func simNode(id string) *api.Node {
	return &api.Node{
		Id: id, Spec: &api.NodeSpec{Availability: api.Availability_AVAILABILITY_ACTIVE},
		Status: &api.NodeStatus{State: api.NodeState_NODE_STATE_READY, ChangedAt: timestamppb.New(time.Now())},
	}
}

// disturb does one thing that users, nodes or time do.
func (w *world) disturb(t *rapid.T) {
	pick := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "pick") }
	nodes, services := all[*api.Node](w), all[*api.Service](w)
	switch action := rapid.IntRange(0, 29).Draw(t, "action"); {
	case action < 8:
		w.progress(pick, false)
	case action < 10:
		w.progress(pick, true)
	case action < 13:
		w.place(pick)
	case action < 22:
		w.step(loops()[pick(len(loops()))])
	case action == 22:
		time.Sleep(time.Duration(pick(4)) * time.Second)
	case action == 23 && len(nodes) > 0:
		edit(w, nodes[pick(len(nodes))].GetId(), func(n *api.Node) {
			n.Status.State = api.NodeState(1 + pick(3))
			n.Status.ChangedAt = timestamppb.New(time.Now())
		})
	case action == 24 && len(nodes) > 0:
		edit(w, nodes[pick(len(nodes))].GetId(), func(n *api.Node) {
			n.Spec.Availability, n.Spec.DrainTimeout, n.Status.DrainBeganAt = api.Availability(1+pick(3)), nil, timestamppb.New(time.Now())
			if seconds := pick(4); seconds > 0 {
				n.Spec.DrainTimeout = durationpb.New(time.Duration(seconds) * time.Second)
			}
		})
	case action == 25 && len(nodes) > 1:
		w.update(func(tx store.Tx) error { return tx.Delete(object.KindNode, nodes[pick(len(nodes))].GetId()) })
	case action == 26:
		w.update(func(tx store.Tx) error { return tx.Create(simNode(object.NewID())) })
	case action == 27 && len(services) > 0:
		edit(w, services[pick(len(services))].GetId(), func(s *api.Service) {
			switch {
			case s.GetSpec().GetReplicated() != nil:
				s.Spec.Replicated.Replicas = uint64(pick(5))
			case s.GetSpec().GetReplicatedJob() != nil:
				s.Spec.ReplicatedJob.TotalCompletions = uint64(1 + pick(5))
			}
		})
	case action == 28 && len(services) > 0:
		edit(w, services[pick(len(services))].GetId(), func(s *api.Service) { changeSpec(s, api.FailureAction(1+pick(3))) })
	case action == 29 && len(services) > 1:
		w.update(func(tx store.Tx) error { return tx.Delete(object.KindService, services[pick(len(services))].GetId()) })
	}
}

// heal makes all nodes work, and lets everything run until nothing changes any more (Q2).
func (w *world) heal() {
	w.update(func(tx store.Tx) error { return tx.Create(simNode("healthy")) })
	for _, n := range all[*api.Node](w) {
		edit(w, n.GetId(), func(n *api.Node) {
			n.Status.State, n.Spec.Availability = api.NodeState_NODE_STATE_READY, api.Availability_AVAILABILITY_ACTIVE
		})
	}
	const patience = 500
	for range patience {
		before := w.index()
		for _, l := range loops() {
			w.step(l)
		}
		first := func(int) int { return 0 }
		for w.place(first) || w.progress(first, false) {
		}
		time.Sleep(6 * time.Second) // longer than any delay, and than updates watch their tasks
		w.checkVersions()
		if w.index() == before && !slices.ContainsFunc(loops(), w.step) && !w.resumePaused() {
			return
		}
	}
	w.fail("things still change after %d rounds", patience)
}

// resumePaused goes on with updates that failures stopped, and reports whether there were any. No other one is still under way.
func (w *world) resumePaused() (resumed bool) {
	for _, s := range all[*api.Service](w) {
		switch s.GetUpdateStatus().GetState() {
		case api.UpdateState_UPDATE_STATE_PAUSED, api.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED:
			edit(w, s.GetId(), resume)
			resumed = true
		case api.UpdateState_UPDATE_STATE_UPDATING, api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED:
			w.fail("service %v: the update never ends, with tasks %v", s, storetest.List[*api.Task](w.t, w.s, store.ByService(s.GetId())))
		}
	}
	return resumed
}

// checkFixedPoint: whatever happened, the end is the same.
func (w *world) checkFixedPoint() {
	for _, t := range all[*api.Task](w) {
		s, err := find[*api.Service](w, t.GetServiceId())
		if err != nil {
			w.fail("task %s outlives its service", t.GetId())
		} else if taskstate.Live(t) && (t.GetStatus().GetState() != api.TaskState_TASK_STATE_RUNNING || t.GetSpecVersion() != s.GetSpecVersion()) {
			w.fail("service %v: task %v does not run the present spec", s, t)
		} else if !taskstate.Kept(t) {
			w.fail("task %s was not forgotten", t.GetId())
		}
	}
	for _, s := range all[*api.Service](w) {
		tasks := storetest.List[*api.Task](w.t, w.s, store.ByService(s.GetId()))
		slots := taskstate.Slots(tasks)
		if taskstate.Job(s.GetSpec()) {
			w.checkJobIsDone(s, slots)
			continue
		}
		want := s.GetSpec().GetReplicated().GetReplicas()
		if s.GetSpec().GetGlobal() != nil {
			want = uint64(len(all[*api.Node](w)))
			w.checkEveryNode(s, tasks)
		}
		if got := uint64(len(slots)); got != want {
			w.fail("service %s has %d slots, want %d", s.GetId(), got, want)
		}
		for slot, tasks := range slots {
			ended := 0
			for _, t := range tasks {
				if !taskstate.Live(t) {
					ended++
				}
			}
			if live := len(tasks) - ended; live != 1 || ended > 5 {
				w.fail("slot %d of %s has %d live and %d ended tasks", slot, s.GetId(), live, ended)
			}
		}
		if s.GetUpdateStatus().GetState() == api.UpdateState_UPDATE_STATE_UPDATING {
			w.fail("service %s: the update never completes", s.GetId())
		}
	}
}

// checkJobIsDone: as many slots ended well as the job wants, or more where it wanted more before, and nothing runs.
func (w *world) checkJobIsDone(s *api.Service, slots map[uint64][]*api.Task) {
	done := map[string]int{} // by node, for a global one
	total := 0
	for number, tasks := range slots {
		if slices.ContainsFunc(tasks, taskstate.Live) {
			w.fail("slot %d of job %s has a live task", number, s.GetId())
		}
		if taskstate.Done(s, tasks) {
			done[tasks[0].GetBoundNodeId()]++
			total++
		}
	}
	if want := s.GetSpec().GetReplicatedJob().GetTotalCompletions(); total < int(want) {
		w.fail("%d slots of job %s ended well, want %d", total, s.GetId(), want)
	}
	if s.GetSpec().GetGlobalJob() == nil {
		return
	}
	for _, n := range all[*api.Node](w) {
		if done[n.GetId()] != 1 {
			w.fail("job %s ended well %d times on node %s", s.GetId(), done[n.GetId()], n.GetId())
		}
	}
}

// checkEveryNode: each node runs one task of a global service.
func (w *world) checkEveryNode(s *api.Service, tasks []*api.Task) {
	on := map[string]int{}
	for _, t := range tasks {
		if taskstate.Live(t) {
			on[t.GetNodeId()]++
		}
	}
	for _, n := range all[*api.Node](w) {
		if on[n.GetId()] != 1 {
			w.fail("service %s has %d live tasks on node %s", s.GetId(), on[n.GetId()], n.GetId())
		}
	}
}

func find[T store.Object](w *world, id string) (found T, err error) {
	err = w.s.View(func(tx store.ReadTx) (err error) {
		found, err = store.Get[T](tx, id)
		return err
	})
	return found, err
}

// TestCores_ReachTheSameFixedPoint: in any order of events and decisions, I5 and I6 hold all the time, and in the end every
// service has what it wants.
func TestCores_ReachTheSameFixedPoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Without the wrapper rapid asks for a deadline, which bubbles don't have.
		rapid.Check(struct{ testing.TB }{t}, func(rt *rapid.T) {
			cryptotest.SetGlobalRandom(t, 1) // ids, so that a failure can be replayed
			order := api.UpdateOrder(1 + rapid.IntRange(0, 1).Draw(rt, "order"))
			w := newWorld(t, rt.Fatalf, order == api.UpdateOrder_UPDATE_ORDER_START_FIRST)
			w.update(func(tx store.Tx) error {
				checked := simService("s1", 3, order, 1)
				if rapid.Bool().Draw(rt, "readiness") {
					checked.Spec.Task.Container.Ready = &api.HealthConfig{Test: []string{"CMD", "probe"}}
				}
				for _, o := range []store.Object{
					simNode("n1"), simNode("n2"), checked,
					simService("s2", 2, order, rapid.Uint64Range(0, 2).Draw(rt, "parallelism")),
					globalService("s3", order, rapid.Uint64Range(0, 2).Draw(rt, "global parallelism")),
					simJob("job1", 4), globalJob("job2"),
				} {
					if err := tx.Create(o); err != nil {
						return err
					}
				}
				return nil
			})
			for range rapid.IntRange(0, 150).Draw(rt, "events") {
				w.disturb(rt)
				w.checkVersions()
			}
			w.heal()
			w.checkFixedPoint()
		})
	})
}
