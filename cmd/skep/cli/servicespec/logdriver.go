package servicespec

import (
	"maps"

	"github.com/spf13/pflag"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
)

// logFlags say where the output of the containers goes.
type logFlags struct {
	driver  string
	options flagvalue.LogOptions
}

func (l *logFlags) register(set *pflag.FlagSet) {
	set.StringVar(&l.driver, "log-driver", "", "Logging driver for service")
	set.Var(&l.options, "log-opt", "Logging driver options")
}

// apply changes what a given flag names (I1): another driver begins without options, which mean something else to it. Options alone are
// changed one by one, and an empty one is taken away.
func (l *logFlags) apply(changed func(...string) bool, task *api.TaskSpec) {
	if changed("log-driver") {
		task.LogDriver = nil // the default
		if l.driver != "" {
			task.LogDriver = &api.LogDriver{Name: l.driver}
		}
	}
	if len(l.options) == 0 {
		return
	}
	if task.LogDriver == nil {
		task.LogDriver = &api.LogDriver{}
	}
	if task.LogDriver.Options == nil {
		task.LogDriver.Options = map[string]string{}
	}
	maps.Copy(task.LogDriver.Options, l.options)
	maps.DeleteFunc(task.LogDriver.Options, func(_, value string) bool { return value == "" })
}
