package servicespec

import (
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// checkFlags are the flags of a check that is run in the container, which create and update both have: those of one kind begin alike.
type checkFlags struct {
	kind                                          string // health or ready
	command                                       string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
	none                                          bool
}

// checkTexts are the help of the flags of a check.
type checkTexts struct{ command, interval, retries, startInterval, startPeriod, timeout string }

func (f *checkFlags) register(set *pflag.FlagSet, kind string, say checkTexts) {
	f.kind = kind
	set.StringVar(&f.command, kind+"-cmd", "", say.command)
	set.DurationVar(&f.interval, kind+"-interval", 0, say.interval)
	set.IntVar(&f.retries, kind+"-retries", 0, say.retries)
	set.DurationVar(&f.startInterval, kind+"-start-interval", 0, say.startInterval)
	set.DurationVar(&f.startPeriod, kind+"-start-period", 0, say.startPeriod)
	set.DurationVar(&f.timeout, kind+"-timeout", 0, say.timeout)
}

// registerChecks declares the flags of health and readiness checks.
func (s *shared) registerChecks(set *pflag.FlagSet) {
	s.health.register(set, "health", checkTexts{
		command: "Command to run to check health", interval: "Time between running the check (ms|s|m|h)",
		retries:       "Consecutive failures needed to report unhealthy",
		startInterval: "Time between running the check during the start period (ms|s|m|h)",
		startPeriod:   "Start period for the container to initialize before counting retries towards unstable (ms|s|m|h)",
		timeout:       "Maximum time to allow one check to run (ms|s|m|h)",
	})
	set.BoolVar(&s.health.none, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
	s.ready.register(set, "ready", checkTexts{
		command: "Command to run to check whether a running task is ready to have work", interval: "Time between running the readiness check (s|m|h) (default 5s)",
		retries:       "Consecutive failures needed until a task is ready no more (default 3)",
		startInterval: "Time between running the readiness check during its start period (s|m|h) (default 1s)",
		startPeriod:   "Time in which a new task gets ready and is checked more often (s|m|h) (default 30s)",
		timeout:       "Maximum time to allow one readiness check to run (ms|s|m|h) (default 5s)",
	})
	set.BoolVar(&s.ready.none, "no-ready", false, "Have no readiness check: a task is ready as soon as it runs")
}

// applyChecks changes what a given flag names (I1).
func (s *shared) applyChecks(c *api.ContainerSpec) error {
	if s.health.none {
		if s.health.given(s.changed) {
			return fault.New(fault.Invalid, "--no-healthcheck conflicts with --health-* options: leave out one of them")
		}
		c.Health = &api.HealthConfig{Test: []string{"NONE"}} // not even the image's
	}
	if s.ready.none {
		if s.ready.given(s.changed) {
			return fault.New(fault.Invalid, "--no-ready conflicts with --ready-* options: leave out one of them")
		}
		c.Ready = nil
	}
	if err := s.health.apply(s.changed, &c.Health); err != nil {
		return err
	}
	return s.ready.apply(s.changed, &c.Ready)
}

// given reports whether one of the flags was.
func (f *checkFlags) given(changed func(...string) bool) bool {
	return changed(f.kind+"-cmd", f.kind+"-interval", f.kind+"-retries", f.kind+"-start-interval", f.kind+"-start-period", f.kind+"-timeout")
}

func (f *checkFlags) apply(changed func(...string) bool, check **api.HealthConfig) error {
	if !f.given(changed) {
		return nil
	}
	if f.retries < 0 {
		return fault.New(fault.Invalid, "invalid --%s-retries %d: cannot be negative", f.kind, f.retries)
	}
	if *check == nil {
		*check = &api.HealthConfig{}
	}
	c := *check
	if changed(f.kind + "-cmd") {
		c.Test = nil
		if f.command != "" {
			c.Test = []string{"CMD-SHELL", f.command}
		}
	}
	if changed(f.kind + "-retries") {
		c.Retries = uint32(f.retries)
	}
	for flag, to := range map[string]struct {
		field **durationpb.Duration
		value time.Duration
	}{
		"-interval": {&c.Interval, f.interval}, "-timeout": {&c.Timeout, f.timeout},
		"-start-period": {&c.StartPeriod, f.startPeriod}, "-start-interval": {&c.StartInterval, f.startInterval},
	} {
		if changed(f.kind + flag) {
			*to.field = durationpb.New(to.value)
		}
	}
	return nil
}
