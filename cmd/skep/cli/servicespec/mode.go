package servicespec

import (
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// The words of --mode.
const (
	replicatedMode = "replicated"
	globalMode     = "global"
)

// modeHelp names them all.
const modeHelp = `Service mode ("replicated", "global")`

// setMode gives a new spec the mode that --mode names.
func setMode(spec *api.ServiceSpec, mode string) error {
	switch mode {
	case replicatedMode:
		spec.Replicated = &api.ReplicatedService{Replicas: 1}
	case globalMode:
		spec.Global = &api.GlobalService{}
	default:
		return fault.New(fault.Invalid, "unknown mode: %s: only replicated and global are supported", mode)
	}
	return nil
}

// SetReplicas changes the number of tasks of a spec; flag is what asks for it, for the error.
func SetReplicas(spec *api.ServiceSpec, replicas uint64, flag string) error {
	if spec.GetReplicated() == nil {
		return fault.New(fault.Invalid, "%s can only be used with replicated or replicated-job mode", flag)
	}
	spec.Replicated = &api.ReplicatedService{Replicas: replicas}
	return nil
}

// applyMode changes the number of replicas, and refuses what a spec of another mode can't have.
func (s *shared) applyMode(spec *api.ServiceSpec) error {
	if s.changed("replicas") {
		if err := SetReplicas(spec, s.replicas, "replicas"); err != nil {
			return err
		}
	}
	if s.changed("replicas-max-per-node") && spec.GetReplicated() == nil {
		return fault.New(fault.Invalid, "replicas-max-per-node can only be used with replicated or replicated-job mode")
	}
	return nil
}
