package servicespec

import (
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
)

// The defaults that the help names; the managers fill in the same ones.
const (
	defaultRestartDelay    = "5s"
	defaultMaxRestartDelay = "5m"
)

// restartFlags say when and how often a task that ended is replaced.
type restartFlags struct {
	condition, backoff      string
	delay, maxDelay, window time.Duration
	maxAttempts             uint64
}

// register declares the flags; say adds a default to a help text, where there is one to be named.
func (r *restartFlags) register(set *pflag.FlagSet, say func(text, value string) string) {
	set.StringVar(&r.backoff, "restart-backoff", "", say(`How the delay grows from one restart to the next ("fixed", "exponential")`, `"fixed"`))
	set.StringVar(&r.condition, "restart-condition", "", say(`Restart when condition is met ("none", "on-failure", "any")`, `"any"`))
	set.DurationVar(&r.delay, "restart-delay", 0, say("Delay between restart attempts (ns|us|ms|s|m|h)", defaultRestartDelay))
	set.Uint64Var(&r.maxAttempts, "restart-max-attempts", 0, "Maximum number of restarts before giving up")
	set.DurationVar(&r.maxDelay, "restart-max-delay", 0, say("Longest delay of an exponential back-off (ns|us|ms|s|m|h)", defaultMaxRestartDelay))
	set.DurationVar(&r.window, "restart-window", 0, "Window used to evaluate the restart policy (ns|us|ms|s|m|h)")
}

// apply changes what a given flag names (I1).
func (r *restartFlags) apply(changed func(...string) bool, task *api.TaskSpec) error {
	if !changed("restart-backoff", "restart-condition", "restart-delay", "restart-max-attempts", "restart-max-delay", "restart-window") {
		return nil
	}
	if task.Restart == nil {
		task.Restart = &api.RestartPolicy{}
	}
	if changed("restart-condition") {
		condition, err := oneOf("restart-condition", r.condition, "none, on-failure or any", map[string]api.RestartCondition{
			"none":       api.RestartCondition_RESTART_CONDITION_NONE,
			"on-failure": api.RestartCondition_RESTART_CONDITION_ON_FAILURE,
			"any":        api.RestartCondition_RESTART_CONDITION_ANY,
		})
		if err != nil {
			return err
		}
		task.Restart.Condition = condition
	}
	if changed("restart-delay") {
		task.Restart.Delay = durationpb.New(r.delay)
	}
	if changed("restart-max-attempts") {
		task.Restart.MaxAttempts = r.maxAttempts
	}
	if changed("restart-window") {
		task.Restart.Window = durationpb.New(r.window)
	}
	if changed("restart-backoff") {
		backoff, err := oneOf("restart-backoff", r.backoff, "fixed or exponential", map[string]api.RestartBackoff{
			"fixed":       api.RestartBackoff_RESTART_BACKOFF_UNSPECIFIED,
			"exponential": api.RestartBackoff_RESTART_BACKOFF_EXPONENTIAL,
		})
		if err != nil {
			return err
		}
		if task.Restart.Backoff = backoff; backoff == api.RestartBackoff_RESTART_BACKOFF_UNSPECIFIED {
			task.Restart.MaxDelay = nil
		}
	}
	if changed("restart-max-delay") {
		task.Restart.MaxDelay = durationpb.New(r.maxDelay)
	}
	return nil
}
