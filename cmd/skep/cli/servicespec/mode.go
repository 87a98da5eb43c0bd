package servicespec

import (
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// The words of --mode.
const (
	replicatedMode    = "replicated"
	globalMode        = "global"
	replicatedJobMode = "replicated-job"
	globalJobMode     = "global-job"
)

// modeHelp names them all.
const modeHelp = `Service mode ("replicated", "global", "replicated-job", "global-job")`

// setMode gives a new spec the mode that --mode names.
func setMode(spec *api.ServiceSpec, mode string) error {
	switch mode {
	case replicatedMode:
		spec.Replicated = &api.ReplicatedService{Replicas: 1}
	case globalMode:
		spec.Global = &api.GlobalService{}
	case replicatedJobMode:
		spec.ReplicatedJob = &api.ReplicatedJob{TotalCompletions: 1}
	case globalJobMode:
		spec.GlobalJob = &api.GlobalJob{}
	default:
		return fault.New(fault.Invalid, "unknown mode: %s: only replicated, global, replicated-job and global-job are supported", mode)
	}
	return nil
}

// SetReplicas changes the number of tasks of a spec; flag is what asks for it, for the error.
func SetReplicas(spec *api.ServiceSpec, replicas uint64, flag string) error {
	switch {
	case spec.GetReplicated() != nil:
		spec.Replicated = &api.ReplicatedService{Replicas: replicas}
	case spec.GetReplicatedJob() != nil:
		spec.ReplicatedJob = &api.ReplicatedJob{MaxConcurrent: spec.GetReplicatedJob().GetMaxConcurrent(), TotalCompletions: replicas}
	default:
		return fault.New(fault.Invalid, "%s can only be used with replicated or replicated-job mode", flag)
	}
	return nil
}

// applyMode changes the numbers of tasks, and refuses what a spec of another mode can't have.
func (s *shared) applyMode(spec *api.ServiceSpec) error {
	if s.changed("replicas") {
		if err := SetReplicas(spec, s.replicas, "replicas"); err != nil {
			return err
		}
	}
	if s.changed("max-concurrent") {
		job := spec.GetReplicatedJob()
		if job == nil {
			return fault.New(fault.Invalid, "max-concurrent can only be used with replicated-job mode")
		}
		spec.ReplicatedJob = &api.ReplicatedJob{MaxConcurrent: s.maxConcurrent, TotalCompletions: job.GetTotalCompletions()}
	}
	if s.changed("replicas-max-per-node") && (spec.GetGlobal() != nil || spec.GetGlobalJob() != nil) {
		return fault.New(fault.Invalid, "replicas-max-per-node can only be used with replicated or replicated-job mode")
	}
	return nil
}
