package control

import (
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/eligible"
	"github.com/skep-io/skep/manager/taskstate"
	"github.com/skep-io/skep/store"
)

// modesOf returns the modes that a spec has, by the words of `service create --mode`.
func modesOf(spec *api.ServiceSpec) (modes []string) {
	if spec.GetReplicated() != nil {
		modes = append(modes, "replicated")
	}
	if spec.GetGlobal() != nil {
		modes = append(modes, "global")
	}
	if spec.GetReplicatedJob() != nil {
		modes = append(modes, "replicated-job")
	}
	if spec.GetGlobalJob() != nil {
		modes = append(modes, "global-job")
	}
	return modes
}

// modeOf returns the mode of a spec, or "" when it has none.
func modeOf(spec *api.ServiceSpec) string { return strings.Join(modesOf(spec), ", ") }

// mode checks that a spec has one mode, and what only some modes can have.
func (p *problems) mode(spec *api.ServiceSpec) {
	modes := modesOf(spec)
	if len(modes) > 1 {
		p.add("mode", "a service has one mode, this one has %s", strings.Join(modes, " and "))
	}
	if n := spec.GetReplicated().GetReplicas(); n > maxReplicas {
		p.add("replicated.replicas", "%d replicas are too many: at most %d are allowed", n, maxReplicas)
	}
	if j := spec.GetReplicatedJob(); j != nil && (j.GetTotalCompletions() < 1 || j.GetTotalCompletions() > maxReplicas) {
		p.add("replicated_job.total_completions", "a job has 1 to %d tasks, got %d", maxReplicas, j.GetTotalCompletions())
	}
	if taskstate.Job(spec) && (spec.GetUpdate() != nil || spec.GetRollback() != nil) {
		p.add("update", "a job has no update and no rollback config: when its spec changes, its tasks stop, and all of them run again")
	}
	if taskstate.Job(spec) && spec.GetTask().GetContainer().GetReady() != nil {
		p.add("task.container.ready", "a job has no readiness check: its tasks are to end, and have no work sent to them")
	}
	if spec.GetTask().GetPlacement().GetMaxReplicas() > 0 && taskstate.EveryNode(spec) {
		p.add("task.placement.max_replicas", "replicas-max-per-node can only be used with replicated or replicated-job mode")
	}
}

// sameMode refuses a spec of another mode than the present one: tasks of one mode mean nothing in the other.
func sameMode(old, spec *api.ServiceSpec) error {
	if before, after := modeOf(old), modeOf(spec); before != after {
		return fault.New(fault.Invalid, "mode: service mode change is not allowed: it is %s, not %s; remove the service and create it anew",
			before, after)
	}
	return nil
}

// countsOf returns how many tasks of a service there are to be, without those that run.
func countsOf(tx store.ReadTx, s *api.Service, tasks []*api.Task) (*api.ServiceCounts, error) {
	counts := &api.ServiceCounts{Desired: s.GetSpec().GetReplicated().GetReplicas()}
	var nodes eligible.Nodes
	if taskstate.EveryNode(s.GetSpec()) {
		var err error
		if nodes, err = eligible.Read(tx, s); err != nil {
			return nil, err
		}
		counts.Desired = nodes.Wanted(tasks)
	}
	if taskstate.Job(s.GetSpec()) {
		countJob(counts, s, taskstate.Slots(tasks), nodes)
	}
	return counts, nil
}

// countJob counts what ended well in a job's present iteration, and what is still to run.
func countJob(counts *api.ServiceCounts, s *api.Service, slots map[uint64][]*api.Task, nodes eligible.Nodes) {
	counts.Total = s.GetSpec().GetReplicatedJob().GetTotalCompletions() + uint64(len(nodes.Take))
	for _, slot := range slots {
		if !taskstate.Done(s, slot) {
			continue
		}
		counts.Completed++
		if node := slot[0].GetBoundNodeId(); node != "" && !nodes.Takes(node) {
			counts.Total++ // done on a node that takes nothing new
		}
	}
	counts.Desired = counts.GetTotal() - min(counts.GetCompleted(), counts.GetTotal())
	if most := s.GetSpec().GetReplicatedJob().GetMaxConcurrent(); most > 0 {
		counts.Desired = min(counts.GetDesired(), most)
	}
}
