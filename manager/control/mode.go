package control

import (
	"slices"
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/eligible"
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
	if spec.GetTask().GetPlacement().GetMaxReplicas() > 0 && slices.Contains(modes, "global") {
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
	if s.GetSpec().GetGlobal() == nil {
		return &api.ServiceCounts{Desired: s.GetSpec().GetReplicated().GetReplicas()}, nil
	}
	nodes, err := eligible.Read(tx, s)
	return &api.ServiceCounts{Desired: nodes.Wanted(tasks)}, err
}
