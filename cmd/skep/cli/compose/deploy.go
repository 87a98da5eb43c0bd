package compose

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

func duration(d types.Duration) time.Duration { return time.Duration(d) }

// deploy gives how many tasks there are, where they run, what they may use, and how they are replaced.
func deploy(f *flags, s types.ServiceConfig) {
	d := s.Deploy
	if d == nil {
		d = &types.DeployConfig{}
	}
	f.put("deploy.mode", "mode", d.Mode)
	if replicas := cmp.Or(d.Replicas, s.Scale); replicas != nil {
		f.put("deploy.replicas", "replicas", strconv.Itoa(*replicas))
	}
	f.pairs("deploy.labels", "label", d.Labels)
	replacing(f, "update", d.UpdateConfig)
	replacing(f, "rollback", d.RollbackConfig)
	resources(f, s, d.Resources)
	restart(f, s.Restart, d.RestartPolicy)
	f.each("deploy.placement.constraints", "constraint", d.Placement.Constraints)
	for _, preference := range d.Placement.Preferences {
		f.put("deploy.placement.preferences", "placement-pref", "spread="+preference.Spread)
	}
	f.count("deploy.placement.max_replicas_per_node", "replicas-max-per-node", given(d.Placement.MaxReplicas))
}

// given returns a number that is not 0.
func given(n uint64) *uint64 {
	if n == 0 {
		return nil
	}
	return &n
}

// replacing gives an update or a rollback config.
func replacing(f *flags, way string, u *types.UpdateConfig) {
	if u == nil {
		return
	}
	key := "deploy." + way + "_config."
	f.count(key+"parallelism", way+"-parallelism", u.Parallelism)
	f.put(key+"delay", way+"-delay", duration(u.Delay).String())
	f.put(key+"failure_action", way+"-failure-action", u.FailureAction)
	if u.Monitor != 0 {
		f.duration(key+"monitor", way+"-monitor", &u.Monitor)
	}
	f.decimal(key+"max_failure_ratio", way+"-max-failure-ratio", u.MaxFailureRatio)
	f.put(key+"order", way+"-order", u.Order)
}

// resources gives limits and reservations, which compose files have in two places; compose-go refuses two that differ.
func resources(f *flags, s types.ServiceConfig, r types.Resources) {
	limits, reservations := cmp.Or(r.Limits, new(types.Resource)), cmp.Or(r.Reservations, new(types.Resource))
	f.decimal("deploy.resources.limits.cpus", "limit-cpu", cmp.Or(limits.NanoCPUs.Value(), s.CPUS))
	f.number("deploy.resources.limits.memory", "limit-memory", int64(cmp.Or(limits.MemoryBytes, s.MemLimit)))
	if pids := cmp.Or(limits.Pids, s.PidsLimit); pids > 0 { // -1 is what is by default
		f.number("deploy.resources.limits.pids", "limit-pids", pids)
	}
	f.decimal("deploy.resources.reservations.cpus", "reserve-cpu", reservations.NanoCPUs.Value())
	f.number("deploy.resources.reservations.memory", "reserve-memory", int64(cmp.Or(reservations.MemoryBytes, s.MemReservation)))
	for _, resource := range reservations.GenericResources {
		if spec := resource.DiscreteResourceSpec; spec != nil {
			f.put("deploy.resources.reservations.generic_resources", "generic-resource", fmt.Sprintf("%s=%d", spec.Kind, spec.Value))
		}
	}
	f.number("memswap_limit", "memory-swap", int64(s.MemSwapLimit))
	f.put("cpuset", "cpuset-cpus", s.CPUSet)
}

// restart gives the restart policy. Without one, the word of `docker run` is taken, which Docker's stacks pass over: a program
// that is to run once would run for ever.
func restart(f *flags, word string, policy *types.RestartPolicy) {
	if policy != nil {
		f.put("deploy.restart_policy.condition", "restart-condition", policy.Condition)
		f.duration("deploy.restart_policy.delay", "restart-delay", policy.Delay)
		f.count("deploy.restart_policy.max_attempts", "restart-max-attempts", policy.MaxAttempts)
		f.duration("deploy.restart_policy.window", "restart-window", policy.Window)
		return
	}
	condition, attempts, _ := strings.Cut(word, ":")
	switch condition {
	case "":
	case types.RestartPolicyNo:
		f.put("restart", "restart-condition", "none")
	case types.RestartPolicyAlways, types.RestartPolicyUnlessStopped:
		f.put("restart", "restart-condition", "any")
	case types.RestartPolicyOnFailure:
		f.put("restart", "restart-condition", "on-failure")
		f.put("restart", "restart-max-attempts", attempts)
	default:
		f.refuse("restart", "unknown policy %q: write no, always, unless-stopped, on-failure or on-failure:N", word)
	}
}
