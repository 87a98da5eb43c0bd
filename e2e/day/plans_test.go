package day

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
)

// foretell asks what a change would do, makes it while nothing else happens, and compares.
func (n *nemesis) foretell(c change) error {
	if !n.intact() {
		return nil
	}
	before, err := n.look()
	if err != nil {
		return err
	}
	request := &api.PlanServiceRequest{Spec: c.create}
	var plan *api.PlanServiceResponse
	err = n.ask(func(ctx context.Context, people api.ControlClient) (err error) {
		if c.create == nil {
			got, err := people.GetService(ctx, &api.GetServiceRequest{Service: c.service})
			if err != nil {
				return err
			}
			request.Service, request.Version = got.GetService().GetId(), got.GetService().GetMeta().GetVersion()
			request.Spec = got.GetService().GetSpec()
			c.edit(request.GetSpec())
		}
		plan, err = people.PlanService(ctx, request)
		return err
	})
	if err != nil {
		return fmt.Errorf("plan: %w", err)
	}
	if err := n.carryOut(request); err != nil {
		return err
	}
	if err := n.settle(c.wishes); err != nil || !n.intact() {
		return err
	}
	after, err := n.look()
	if err != nil {
		return err
	}
	if wrong := compare(plan, before, after); wrong != "" {
		n.violated("the plan of %s said otherwise than what came: %s\nthe plan:\n%s", c.service, wrong, described(plan))
	}
	return nil
}

// change is one of a service, for a plan.
type change struct {
	service string
	create  *api.ServiceSpec // of a new one; else edit
	edit    func(*api.ServiceSpec)
	wishes  map[string]int // all services once it is made
}

// carryOut does what was asked about.
func (n *nemesis) carryOut(r *api.PlanServiceRequest) error {
	if r.GetService() == "" {
		return n.create(r.GetSpec())
	}
	return n.ask(func(ctx context.Context, people api.ControlClient) error {
		_, err := people.UpdateService(ctx, &api.UpdateServiceRequest{ServiceId: r.GetService(), Version: r.GetVersion(), Spec: r.GetSpec()})
		return err
	})
}

// compare says in what a plan was wrong: which tasks go on and which end, in which slots new ones begin, and where those of the first
// step are. Where later ones are depends on which task starts and stops sooner; a plan has them all take no time.
func compare(plan *api.PlanServiceResponse, before, after view) string {
	old, now, begun := map[string]bool{}, map[string]bool{}, map[place]*api.Task{}
	for _, t := range before.tasks {
		old[t.GetId()] = true
	}
	for _, t := range after.tasks {
		now[t.GetId()] = alive(t)
		p := placeOf(t)
		if first := begun[p]; t.GetServiceName() == plan.GetServiceName() && !old[t.GetId()] &&
			(first == nil || t.GetMeta().GetCreatedAt().AsTime().Before(first.GetMeta().GetCreatedAt().AsTime())) {
			begun[p] = t
		}
	}
	for _, p := range plan.GetTasks() {
		goesOn := p.GetAction() == api.PlannedAction_PLANNED_ACTION_STAY
		if p.GetTaskId() != "" && now[p.GetTaskId()] != goesOn {
			return fmt.Sprintf("task %s was to %v, and goes on: %v", p.GetTaskId(), p.GetAction(), now[p.GetTaskId()])
		}
	}
	return compareNew(plan, slices.Collect(maps.Values(begun)), after)
}

// compareNew compares the new tasks, of which there is one for each place. Which of the slots of a step gets which of its nodes is left
// open: among tasks that are alike, the scheduler goes by their ids.
func compareNew(plan *api.PlanServiceResponse, begun []*api.Task, after view) string {
	count, planned, slots := 0, []string{}, map[uint64]bool{}
	for _, p := range plan.GetTasks() {
		if p.GetAction() != api.PlannedAction_PLANNED_ACTION_CREATE && p.GetAction() != api.PlannedAction_PLANNED_ACTION_REPLACE {
			continue
		}
		count++
		waits := p.GetAction() == api.PlannedAction_PLANNED_ACTION_REPLACE && len(plan.GetSpec().GetEndpoint().GetPorts()) > 0
		if p.GetStep() > 1 || waits { // for a port that is freed somewhere
			continue
		}
		slots[p.GetSlot()] = true
		if p.GetToNodeId() != "" { // else the task waits for room that a job frees
			planned = append(planned, p.GetToNodeId())
		}
	}
	rest := slices.Clone(planned)
	for _, t := range begun {
		if i := slices.Index(rest, t.GetNodeId()); i >= 0 && (t.GetBoundNodeId() != "" || slots[t.GetSlot()]) {
			rest = slices.Delete(rest, i, i+1)
		}
	}
	if len(rest) > 0 {
		return fmt.Sprintf("tasks were to begin on %v first, and those that did are %s", after.hostnames(slices.Values(planned)), after.placed(begun))
	}
	want := len(begun)
	if job := plan.GetSpec().GetReplicatedJob(); job.GetMaxConcurrent() > 0 { // of which a plan tells what begins at once
		want = min(want, int(job.GetMaxConcurrent()))
	}
	if count != want {
		return fmt.Sprintf("%d tasks were to begin, and %d did: %s", count, want, after.placed(begun))
	}
	return ""
}

// placed says where tasks are.
func (v view) placed(tasks []*api.Task) string {
	var out []string
	for _, t := range tasks {
		made := t.GetMeta().GetCreatedAt().AsTime().Format("15:04:05.000")
		out = append(out, fmt.Sprintf("%d on %s (made at %s)", t.GetSlot(), v.nodes[t.GetNodeId()].GetDescription().GetHostname(), made))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func described(plan *api.PlanServiceResponse) string {
	var out strings.Builder
	for _, p := range plan.GetTasks() {
		_, _ = fmt.Fprintf(&out, "%d slot %d %v %s from %s to %s: %s %s\n", p.GetStep(), p.GetSlot(), p.GetAction(), p.GetTaskId(), p.GetHostname(), p.GetToHostname(), p.GetWhy(), p.GetRefusal())
	}
	return out.String()
}

// foretold adds some changes whose plans are compared with what comes of them.
func (s *schedule) foretold() {
	const changes = 3
	for range changes {
		switch draw := s.rng.IntN(3); {
		case draw == 0 && len(s.services) < maxServices:
			w, spec := s.wish()
			s.services = append(s.services, w)
			s.foretell(change{service: w.name, create: spec}, fmt.Sprintf("create %s of %d", w.name, w.replicas))
		case draw == 1 && len(s.services) > 0:
			w := pick(s, s.services)
			if isGlobal(w.name) || isJob(w.name) {
				continue
			}
			w.replicas = s.size(w)
			replicas := uint64(w.replicas)
			s.foretell(change{service: w.name, edit: func(spec *api.ServiceSpec) { spec.Replicated.Replicas = replicas }}, fmt.Sprintf("scale %s to %d", w.name, replicas))
		case len(s.services) > 0:
			w := pick(s, s.services)
			w.version++
			env := []string{fmt.Sprint("VERSION=", w.version)}
			s.foretell(change{service: w.name, edit: func(spec *api.ServiceSpec) { spec.Task.Container.Env = env }}, fmt.Sprintf("update %s to version %d", w.name, w.version))
		}
	}
}

func (s *schedule) foretell(c change, what string) {
	c.wishes = s.wishes()
	s.add(func(n *nemesis) error { return n.foretell(c) }, "plan to %s, and do it", what)
}

// wishes are the services that there are to be, and their replicas.
func (s *schedule) wishes() map[string]int {
	wishes := map[string]int{}
	for _, w := range s.services {
		wishes[w.name] = w.replicas
	}
	return wishes
}
