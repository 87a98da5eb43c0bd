package servicespec

import (
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/fault"
)

// Docker's defaults, which its help shows. The managers fill in the same ones.
const (
	defaultGracePeriod = "10s"
)

// shared are the flags that create and update both have, with the same meaning.
type shared struct {
	limits
	set *pflag.FlagSet
	privileges

	process       processFlags
	health, ready checkFlags
	log           logFlags

	capAdd, capDrop      flagvalue.List
	entrypoint           flagvalue.Words
	hostname, user, dir  string
	readOnly             bool
	limitCPU, reserveCPU flagvalue.NanoCPUs
	limitMemory, reserve flagvalue.Bytes
	limitPids            int64
	replicas             uint64
	maxConcurrent        uint64
	placement            placementFlags
	restart              restartFlags
	gracePeriod          time.Duration
	stopSignal           string

	update, rollback replacingFlags
}

// register declares the flags. With defaults the help names Docker's defaults, as it does for create.
func (s *shared) register(set *pflag.FlagSet, defaults bool) {
	s.set = set
	s.process.register(set)
	s.registerChecks(set)
	s.log.register(set)
	s.placement.register(set)
	s.limits.register(set)
	s.privileges.register(set)
	say := func(text, value string) string {
		if !defaults {
			return text
		}
		return text + " (default " + value + ")"
	}
	set.Var(&s.capAdd, "cap-add", "Add Linux capabilities")
	set.Var(&s.capDrop, "cap-drop", "Drop Linux capabilities")
	set.Var(&s.entrypoint, "entrypoint", "Overwrite the default ENTRYPOINT of the image")
	set.StringVar(&s.hostname, "hostname", "", "Container hostname")
	set.Var(&s.limitCPU, "limit-cpu", "Limit CPUs")
	set.Var(&s.limitMemory, "limit-memory", "Limit Memory")
	set.Int64Var(&s.limitPids, "limit-pids", 0, "Limit maximum number of processes (default 0 = unlimited)")
	set.BoolVar(&s.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	set.Uint64Var(&s.maxConcurrent, "max-concurrent", 0, "Number of job tasks to run concurrently (default equal to --replicas)")
	set.Uint64Var(&s.replicas, "replicas", 0, "Number of tasks")
	set.Var(&s.reserveCPU, "reserve-cpu", "Reserve CPUs")
	set.Var(&s.reserve, "reserve-memory", "Reserve Memory")
	s.restart.register(set, say)
	set.DurationVar(&s.gracePeriod, "stop-grace-period", 0,
		say("Time to wait before force killing a container (ns|us|ms|s|m|h)", defaultGracePeriod))
	set.StringVar(&s.stopSignal, "stop-signal", "", "Signal to stop the container")
	s.update.register(set, "update", defaults, say)
	s.rollback.register(set, "rollback", defaults, say)
	set.StringVarP(&s.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	set.StringVarP(&s.dir, "workdir", "w", "", "Working directory inside the container")
}

// changed reports whether one of the flags was given.
func (s *shared) changed(names ...string) bool {
	for _, name := range names {
		if s.set.Changed(name) {
			return true
		}
	}
	return false
}

// apply changes the parts of spec that a given flag names (I1). All messages of spec that it touches must be its own.
func (s *shared) apply(spec *api.ServiceSpec) error {
	if err := s.applyMode(spec); err != nil {
		return err
	}
	task := taskOf(spec)
	s.log.apply(s.changed, task)
	s.applyContainer(task.Container)
	s.process.apply(s.changed, task.Container)
	if s.changed("security-opt", "userns", "pid", "ipc", "network", "network-add", "network-rm") {
		if err := s.privileges.apply(task.Container); err != nil {
			return err
		}
	}
	if err := s.applyChecks(task.Container); err != nil {
		return err
	}
	if err := s.placement.apply(s.changed, task); err != nil {
		return err
	}
	if err := s.applyResources(task); err != nil {
		return err
	}
	if err := s.restart.apply(s.changed, task); err != nil {
		return err
	}
	if err := s.update.apply(s.changed, &spec.Update); err != nil {
		return err
	}
	return s.rollback.apply(s.changed, &spec.Rollback)
}

func (s *shared) applyContainer(c *api.ContainerSpec) {
	if s.changed("entrypoint") {
		c.Command = s.entrypoint
	}
	if s.changed("hostname") {
		c.Hostname = s.hostname
	}
	if s.changed("user") {
		c.User = s.user
	}
	if s.changed("workdir") {
		c.Dir = s.dir
	}
	if s.changed("read-only") {
		c.ReadOnly = s.readOnly
	}
	if s.changed("stop-signal") {
		c.StopSignal = s.stopSignal
	}
	if s.changed("stop-grace-period") {
		c.StopGracePeriod = durationpb.New(s.gracePeriod)
	}
	if s.changed("cap-add", "cap-drop") {
		c.CapabilityAdd, c.CapabilityDrop = changeCapabilities(c.CapabilityAdd, c.CapabilityDrop, s.capAdd, s.capDrop)
	}
}

func (s *shared) applyResources(task *api.TaskSpec) error {
	if !s.changed(append(limitFlags(), "limit-cpu", "limit-memory", "limit-pids", "reserve-cpu", "reserve-memory")...) {
		return nil
	}
	if s.limitPids < 0 {
		return fault.New(fault.Invalid, "invalid --limit-pids %d: write a number of processes, or 0 for the node's default", s.limitPids)
	}
	if task.Resources == nil {
		task.Resources = &api.ResourceRequirements{}
	}
	s.applyLimits(task.Resources)
	if s.changed("limit-cpu", "limit-memory", "limit-pids") && task.Resources.Limits == nil {
		task.Resources.Limits = &api.Resources{}
	}
	if s.changed("reserve-cpu", "reserve-memory") && task.Resources.Reservations == nil {
		task.Resources.Reservations = &api.Resources{}
	}
	if s.changed("limit-cpu") {
		task.Resources.Limits.NanoCpus = int64(s.limitCPU)
	}
	if s.changed("limit-memory") {
		task.Resources.Limits.MemoryBytes = int64(s.limitMemory)
	}
	if s.changed("limit-pids") {
		task.Resources.Limits.Pids = s.limitPids
	}
	if s.changed("reserve-cpu") {
		task.Resources.Reservations.NanoCpus = int64(s.reserveCPU)
	}
	if s.changed("reserve-memory") {
		task.Resources.Reservations.MemoryBytes = int64(s.reserve)
	}
	return nil
}

// oneOf returns the value of the word that was given for a flag; words lists them for the error.
func oneOf[E any](flag, given, words string, values map[string]E) (E, error) {
	value, ok := values[given]
	if !ok {
		return value, fault.New(fault.Invalid, "invalid --%s %q: write %s", flag, given, words)
	}
	return value, nil
}

// taskOf returns the spec's task, with a container, making what is missing.
func taskOf(spec *api.ServiceSpec) *api.TaskSpec {
	if spec.Task == nil {
		spec.Task = &api.TaskSpec{}
	}
	if spec.Task.Container == nil {
		spec.Task.Container = &api.ContainerSpec{}
	}
	return spec.Task
}

func placementOf(task *api.TaskSpec) *api.Placement {
	if task.Placement == nil {
		task.Placement = &api.Placement{}
	}
	return task.Placement
}
