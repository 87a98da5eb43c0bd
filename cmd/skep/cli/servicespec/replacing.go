package servicespec

import (
	"time"

	"github.com/spf13/pflag"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
)

// replacingFlags say how tasks are replaced: those of an update, or of a rollback.
type replacingFlags struct {
	prefix                   string // "update" or "rollback"
	parallelism              uint64
	delay, monitor, deadline time.Duration
	ratio                    float64
	action, order            string
}

// Docker's defaults, and a deadline, which the managers fill in too.
const (
	defaultParallelism = 1
	defaultDelay       = "0s"
	defaultMonitor     = "5s"
	defaultDeadline    = "10m"
)

// register declares the flags; say adds a default to a help text, where there is one to be named.
func (f *replacingFlags) register(set *pflag.FlagSet, prefix string, defaults bool, say func(text, value string) string) {
	f.prefix = prefix
	words := map[string]string{
		"parallelism": "Maximum number of tasks updated simultaneously (0 to update all at once)", "delay": "Delay between updates (ns|us|ms|s|m|h)",
		"monitor": "Duration after each task update to monitor for failure (ns|us|ms|s|m|h)", "order": `Update order ("start-first", "stop-first")`,
		"ratio": "Failure rate to tolerate during an update", "action": `Action on update failure ("pause", "continue", "rollback")`,
	}
	if prefix == "rollback" {
		words = map[string]string{
			"parallelism": "Maximum number of tasks rolled back simultaneously (0 to roll back all at once)", "delay": "Delay between task rollbacks (ns|us|ms|s|m|h)",
			"monitor": "Duration after each task rollback to monitor for failure (ns|us|ms|s|m|h)", "order": `Rollback order ("start-first", "stop-first")`,
			"ratio": "Failure rate to tolerate during a rollback", "action": `Action on rollback failure ("pause", "continue")`,
		}
	}
	parallelism := uint64(0)
	if defaults {
		parallelism = defaultParallelism
	}
	set.DurationVar(&f.deadline, prefix+"-deadline", 0, say("Time a new task may take until it runs, else it failed; 0s is for ever (ns|us|ms|s|m|h)", defaultDeadline))
	set.DurationVar(&f.delay, prefix+"-delay", 0, say(words["delay"], defaultDelay))
	set.StringVar(&f.action, prefix+"-failure-action", "", say(words["action"], `"pause"`))
	set.Float64Var(&f.ratio, prefix+"-max-failure-ratio", 0, say(words["ratio"], "0"))
	set.DurationVar(&f.monitor, prefix+"-monitor", 0, say(words["monitor"], defaultMonitor))
	set.StringVar(&f.order, prefix+"-order", "", say(words["order"], `"stop-first"`))
	set.Uint64Var(&f.parallelism, prefix+"-parallelism", parallelism, words["parallelism"])
}

// apply changes what a given flag names (I1); config is nil where the spec says nothing yet.
func (f *replacingFlags) apply(changed func(...string) bool, config **api.UpdateConfig) error {
	flag := func(name string) bool { return changed(f.prefix + "-" + name) }
	if !changed(f.names()...) {
		return nil
	}
	if *config == nil {
		*config = &api.UpdateConfig{Parallelism: defaultParallelism} // 0 would mean all at once
	}
	u := *config
	for name, to := range map[string]struct {
		field **durationpb.Duration
		value time.Duration
	}{"delay": {&u.Delay, f.delay}, "monitor": {&u.Monitor, f.monitor}, "deadline": {&u.Deadline, f.deadline}} {
		if flag(name) {
			*to.field = durationpb.New(to.value)
		}
	}
	if flag("parallelism") {
		u.Parallelism = f.parallelism
	}
	if flag("max-failure-ratio") {
		u.MaxFailureRatio = float32(f.ratio)
	}
	if flag("order") {
		order, err := oneOf(f.prefix+"-order", f.order, "start-first or stop-first", map[string]api.UpdateOrder{
			"stop-first":  api.UpdateOrder_UPDATE_ORDER_STOP_FIRST,
			"start-first": api.UpdateOrder_UPDATE_ORDER_START_FIRST,
		})
		if err != nil {
			return err
		}
		u.Order = order
	}
	if flag("failure-action") {
		return f.applyAction(u)
	}
	return nil
}

func (f *replacingFlags) applyAction(u *api.UpdateConfig) error {
	actions, known := map[string]api.FailureAction{
		"pause":    api.FailureAction_FAILURE_ACTION_PAUSE,
		"continue": api.FailureAction_FAILURE_ACTION_CONTINUE,
	}, "pause or continue"
	if f.prefix == "update" {
		actions["rollback"], known = api.FailureAction_FAILURE_ACTION_ROLLBACK, "pause, continue or rollback"
	}
	action, err := oneOf(f.prefix+"-failure-action", f.action, known, actions)
	if err != nil {
		return err
	}
	u.FailureAction = action
	return nil
}

func (f *replacingFlags) names() []string {
	var out []string
	for _, name := range []string{"deadline", "delay", "failure-action", "max-failure-ratio", "monitor", "order", "parallelism"} {
		out = append(out, f.prefix+"-"+name)
	}
	return out
}
