package day

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
)

// view is the swarm as the control API tells of it.
type view struct {
	nodes    map[string]*api.Node // by id
	services []*api.Service
	counts   map[string]*api.ServiceCounts
	tasks    []*api.Task
}

func (w *world) look() (view, error) {
	v := view{nodes: map[string]*api.Node{}}
	err := w.ask(func(ctx context.Context, c api.ControlClient) error {
		nodes, err := c.ListNodes(ctx, &api.ListNodesRequest{})
		if err != nil {
			return err
		}
		services, err := c.ListServices(ctx, &api.ListServicesRequest{})
		if err != nil {
			return err
		}
		tasks, err := c.ListTasks(ctx, &api.ListTasksRequest{})
		for _, n := range nodes.GetNodes() {
			v.nodes[n.GetId()] = n
		}
		v.services, v.counts, v.tasks = services.GetServices(), services.GetCounts(), tasks.GetTasks()
		return err
	})
	return v, err
}

// nodesReady says which nodes are not.
func (w *world) nodesReady() string {
	v, err := w.look()
	if err != nil {
		return err.Error()
	}
	return v.notReady(w)
}

func (v view) notReady(w *world) string {
	for _, m := range w.machines {
		if n := v.nodes[m.id()]; n.GetStatus().GetState() != api.NodeState_NODE_STATE_READY {
			return fmt.Sprintf("%s is %v: %s", m.name, n.GetStatus().GetState(), n.GetStatus().GetMessage())
		}
	}
	return ""
}

// unsettled says what is not as people want it, or "". wishes are the services that there are to be, and their replicas.
func (w *world) unsettled(wishes map[string]int) string {
	v, err := w.look()
	if err != nil {
		return err.Error()
	}
	if missing := v.notReady(w); missing != "" {
		return missing
	}
	if missing := v.wished(wishes); missing != "" {
		return missing
	}
	for _, s := range v.services {
		if missing := v.service(s); missing != "" {
			return "service " + s.GetSpec().GetAnnotations().GetName() + ": " + missing
		}
	}
	if missing := v.strays(); missing != "" {
		return missing
	}
	for _, m := range w.machines {
		if missing := v.machine(w, m); missing != "" {
			return m.name + ": " + missing
		}
	}
	return ""
}

// alive reports whether something of a task may run.
func alive(t *api.Task) bool { return t.GetStatus().GetState() <= api.TaskState_TASK_STATE_RUNNING }

func (v view) of(service string) (tasks []*api.Task) {
	for _, t := range v.tasks {
		if t.GetServiceId() == service {
			tasks = append(tasks, t)
		}
	}
	return tasks
}

// service says what a service lacks, or has too much of.
func (v view) service(s *api.Service) string {
	switch s.GetUpdateStatus().GetState() {
	case api.UpdateState_UPDATE_STATE_UPDATING, api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED,
		api.UpdateState_UPDATE_STATE_PAUSED, api.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED:
		return s.GetUpdateStatus().GetState().String() + " " + s.GetUpdateStatus().GetMessage()
	}
	tasks := v.of(s.GetId())
	if job := s.GetSpec().GetReplicatedJob(); job != nil {
		return v.job(s, tasks, job.GetTotalCompletions())
	}
	if s.GetSpec().GetGlobalJob() != nil {
		return v.job(s, tasks, uint64(len(v.eligible(s))))
	}
	running := map[place]string{}
	for _, t := range tasks {
		if !alive(t) {
			continue
		}
		if t.GetStatus().GetState() != api.TaskState_TASK_STATE_RUNNING || t.GetDesiredState() != api.TaskState_TASK_STATE_RUNNING {
			return fmt.Sprintf("task %s in slot %d is %v and to be %v (%s)", t.GetId(), t.GetSlot(), t.GetStatus().GetState(), t.GetDesiredState(), t.GetStatus().GetErr())
		}
		if other := running[placeOf(t)]; other != "" {
			return fmt.Sprintf("slot %d has tasks %s and %s", t.GetSlot(), other, t.GetId())
		}
		if v.nodes[t.GetNodeId()].GetSpec().GetAvailability() == api.Availability_AVAILABILITY_DRAIN {
			return fmt.Sprintf("task %s runs on a drained node", t.GetId())
		}
		if t.GetSpecVersion() != s.GetSpecVersion() && t.GetSpecVersion() != s.GetRestoredVersion() {
			return fmt.Sprintf("task %s has version %d, not %d", t.GetId(), t.GetSpecVersion(), s.GetSpecVersion())
		}
		running[placeOf(t)] = t.GetId()
	}
	if s.GetSpec().GetGlobal() != nil {
		return v.everywhere(s, running)
	}
	if want := s.GetSpec().GetReplicated().GetReplicas(); uint64(len(running)) != want || v.counts[s.GetId()].GetRunning() != want {
		return fmt.Sprintf("%d tasks run, and %d by its list; wanted are %d", len(running), v.counts[s.GetId()].GetRunning(), want)
	}
	return ""
}

// wished says which services are not those that people asked for.
func (v view) wished(wishes map[string]int) string {
	left := maps.Clone(wishes)
	for _, s := range v.services {
		name := s.GetSpec().GetAnnotations().GetName()
		want, known := left[name]
		delete(left, name)
		got := s.GetSpec().GetReplicated().GetReplicas() + s.GetSpec().GetReplicatedJob().GetTotalCompletions()
		if !known || got != uint64(want) && !isGlobal(name) {
			return fmt.Sprintf("there is a service %s of %d, and people wanted %d (%v)", name, got, want, known)
		}
	}
	if len(left) > 0 {
		return fmt.Sprintf("there are no services %v", slices.Sorted(maps.Keys(left)))
	}
	return ""
}

// eligible are the nodes on which a service runs that runs everywhere.
func (v view) eligible(s *api.Service) map[string]bool {
	nodes := map[string]bool{}
	for id, n := range v.nodes {
		if n.GetSpec().GetAvailability() == api.Availability_AVAILABILITY_ACTIVE && fits(s.GetSpec().GetTask(), n.GetSpec()) {
			nodes[id] = true
		}
	}
	return nodes
}

// everywhere compares where tasks run with where they should.
func (v view) everywhere(s *api.Service, running map[place]string) string {
	nodes := map[string]bool{}
	for p := range running {
		nodes[p.node] = true
	}
	if want := v.eligible(s); !maps.Equal(nodes, want) {
		return fmt.Sprintf("it runs on %v, and should on %v", v.hostnames(maps.Keys(nodes)), v.hostnames(maps.Keys(want)))
	}
	return ""
}

func (v view) hostnames(nodes iter.Seq[string]) (names []string) {
	for id := range nodes {
		names = append(names, v.nodes[id].GetDescription().GetHostname())
	}
	slices.Sort(names)
	return names
}

// job says what a job lacks: as many slots ended well as it wants, and nothing of it runs. That each did so once, the books say.
func (v view) job(s *api.Service, tasks []*api.Task, want uint64) string {
	done := map[place]bool{}
	for _, t := range tasks {
		switch {
		case alive(t):
			return fmt.Sprintf("task %s in slot %d is %v", t.GetId(), t.GetSlot(), t.GetStatus().GetState())
		case t.GetStatus().GetState() == api.TaskState_TASK_STATE_COMPLETE && t.GetSpecVersion() == s.GetSpecVersion():
			done[placeOf(t)] = true
		}
	}
	counted := v.counts[s.GetId()]
	if s.GetSpec().GetGlobalJob() != nil { // on nodes that were eligible once, too
		if uint64(len(done)) < want {
			return fmt.Sprintf("it ended well on %d nodes of %d", len(done), want)
		}
		return ""
	}
	if uint64(len(done)) != want || counted.GetCompleted() != want || counted.GetTotal() != want {
		return fmt.Sprintf("%d slots ended well, and %d of %d by its list; wanted are %d", len(done), counted.GetCompleted(), counted.GetTotal(), want)
	}
	return ""
}

// strays says which tasks live that no service has.
func (v view) strays() string {
	for _, t := range v.tasks {
		if alive(t) && !slices.ContainsFunc(v.services, func(s *api.Service) bool { return s.GetId() == t.GetServiceId() }) {
			return fmt.Sprintf("task %s lives on without its service", t.GetId())
		}
	}
	return ""
}

// heldAs is the name under which a node holds the value of a reference.
func heldAs(s *api.SecretReference) string {
	if s.GetVersion() == 0 {
		return s.GetSecretId()
	}
	return fmt.Sprintf("%s@%d", s.GetSecretId(), s.GetVersion())
}

// machine compares what a machine has with what managers believe.
func (v view) machine(w *world, m *machine) string {
	var running []string
	known, secrets := map[string]bool{}, map[string]bool{}
	for _, t := range v.tasks {
		if t.GetNodeId() != m.id() {
			continue
		}
		known[t.GetId()] = true
		if alive(t) {
			running = append(running, t.GetId())
			for _, s := range t.GetSpec().GetContainer().GetSecrets() {
				secrets[heldAs(s)] = true
			}
		}
	}
	slices.Sort(running)
	if got := w.books.on(m); !slices.Equal(got, running) {
		return fmt.Sprintf("processes of tasks %v run, and should of %v", got, running)
	}
	containers, kept := m.executor.holdings()
	for id := range containers {
		if !slices.Contains(running, id) {
			return fmt.Sprintf("the container of task %s is left", id)
		}
	}
	for id := range kept {
		if !known[id] {
			return fmt.Sprintf("something is kept of task %s, which nobody knows", id)
		}
	}
	if got, want := m.agent.held(), slices.Sorted(maps.Keys(secrets)); !slices.Equal(got, want) {
		return fmt.Sprintf("it has the secrets %s, and needs %s", strings.Join(got, " "), strings.Join(want, " "))
	}
	return ""
}
