package servicespec

import (
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// healthFlags are the flags of health checks, which create and update both have.
type healthFlags struct {
	command                                       string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       int
	none                                          bool
}

func (f *healthFlags) register(set *pflag.FlagSet) {
	set.StringVar(&f.command, "health-cmd", "", "Command to run to check health")
	set.DurationVar(&f.interval, "health-interval", 0, "Time between running the check (ms|s|m|h)")
	set.IntVar(&f.retries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	set.DurationVar(&f.startInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h)")
	set.DurationVar(&f.startPeriod, "health-start-period", 0, "Start period for the container to initialize before counting retries towards unstable (ms|s|m|h)")
	set.DurationVar(&f.timeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h)")
	set.BoolVar(&f.none, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}

// apply changes what a given flag names (I1).
func (f *healthFlags) apply(changed func(...string) bool, c *api.ContainerSpec) error {
	any := changed("health-cmd", "health-interval", "health-retries", "health-start-interval", "health-start-period", "health-timeout")
	switch {
	case f.none && any:
		return fault.New(fault.Invalid, "--no-healthcheck conflicts with --health-* options: leave out one of them")
	case f.none:
		c.Health = &api.HealthConfig{Test: []string{"NONE"}}
		return nil
	case !any:
		return nil
	case f.retries < 0:
		return fault.New(fault.Invalid, "invalid --health-retries %d: cannot be negative", f.retries)
	}
	if c.Health == nil {
		c.Health = &api.HealthConfig{}
	}
	if changed("health-cmd") {
		c.Health.Test = nil
		if f.command != "" {
			c.Health.Test = []string{"CMD-SHELL", f.command}
		}
	}
	if changed("health-retries") {
		c.Health.Retries = uint32(f.retries)
	}
	for flag, to := range map[string]struct {
		field **durationpb.Duration
		value time.Duration
	}{
		"health-interval": {&c.Health.Interval, f.interval}, "health-timeout": {&c.Health.Timeout, f.timeout},
		"health-start-period": {&c.Health.StartPeriod, f.startPeriod}, "health-start-interval": {&c.Health.StartInterval, f.startInterval},
	} {
		if changed(flag) {
			*to.field = durationpb.New(to.value)
		}
	}
	return nil
}
