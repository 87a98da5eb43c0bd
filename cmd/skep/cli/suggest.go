package cli

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// instead says what to type for commands that Docker has and skep hasn't.
var instead = map[string]string{
	"build":   "images come from elsewhere, as archives: 'skep image load'",
	"compose": "use 'skep stack deploy -c FILE STACK'",
	"create":  "use 'skep service create IMAGE'",
	"images":  "use 'skep image ls'",
	"inspect": "use 'skep service inspect', or that of another kind of object",
	"load":    "use 'skep image load'",
	"logs":    "use 'skep service logs SERVICE|TASK'",
	"network": "there are no networks over several nodes yet",
	"ps":      "use 'skep service ls', 'skep service ps SERVICE', or 'skep node ps NODE'",
	"pull":    "images come as archives: 'skep image load'",
	"push":    "images come as archives, and nodes hand them to each other: 'skep image load'",
	"restart": "use 'skep service update --force SERVICE'",
	"rm":      "use 'skep service rm SERVICE'",
	"rmi":     "use 'skep image rm IMAGE'",
	"run":     "use 'skep service create IMAGE'",
	"start":   "use 'skep service scale SERVICE=1'",
	"stop":    "use 'skep service scale SERVICE=0', or 'skep service rm SERVICE'",
	"update":  "use 'skep service update SERVICE'",
}

// noRegistries is about flags for them.
const noRegistries = "images come from the nodes that have them ('skep image load'), and not from registries: leave it out"

// insteadFlag says what to type for flags that Docker's commands have and skep's haven't.
var insteadFlag = map[string]map[string]string{
	"skep service create": {
		"H":                  "the daemon to connect to is named before the command: 'skep -H HOST service create'",
		"cpus":               "use --limit-cpu",
		"credential-spec":    "there are no Windows containers",
		"device":             "a device comes by a grant: 'skep grant create NAME --device PATH', and here --grant NAME",
		"endpoint-mode":      "there are no networks over several nodes yet, hence no virtual addresses: publish on the node of each task with --publish target=PORT,mode=host",
		"gpus":               "a device comes by a grant: 'skep grant create NAME --device vendor.com/class=name', and here --grant NAME",
		"isolation":          "there are no Windows containers",
		"m":                  "use --limit-memory",
		"memory":             "use --limit-memory",
		"memory-reservation": "use --reserve-memory",
		"no-resolve-image":   noRegistries,
		"pids-limit":         "use --limit-pids",
		"privileged":         "what a service may have beyond the default comes by a grant: 'skep grant create NAME', and here --grant NAME",
		"restart":            "use --restart-condition",
		"stop-timeout":       "use --stop-grace-period",
		"v":                  "use --mount source=VOLUME,target=PATH",
		"volume":             "use --mount source=VOLUME,target=PATH",
		"with-registry-auth": noRegistries,
	},
	"skep service update": {
		"no-resolve-image":   noRegistries,
		"with-registry-auth": noRegistries,
	},
	"skep stack deploy": {
		"with-registry-auth": noRegistries,
	},
	"skep exec": {
		"detach-keys": "a command is not left behind by keys: give it -d, or see 'skep attach'",
		"privileged":  "a command gets no more than its task has: the service gets more by a grant ('skep grant create NAME')",
	},
}

// flagHint is what to type instead of a flag that there is not, behind a colon; empty if nobody knows.
func flagHint(cmd *cobra.Command, err error) string {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) {
		return ""
	}
	if hint := insteadFlag[cmd.CommandPath()][unknown.GetSpecifiedName()]; hint != "" {
		return ": " + hint
	}
	return ""
}

// unknownCommand is the error for a word that is none of a command's, with what may have been meant.
func unknownCommand(cmd *cobra.Command, word string) error {
	text := fmt.Sprintf("unknown command: %s %s", cmd.CommandPath(), word)
	if hint, known := instead[word]; known && !cmd.HasParent() {
		text += ": " + hint
	} else if near := similar(cmd, word); len(near) > 0 {
		text += ": did you mean '" + cmd.CommandPath() + " " + strings.Join(near, "' or '"+cmd.CommandPath()+" ") + "'?"
	}
	return &usageError{command: cmd, err: errors.New(text)}
}

// similar returns the names of commands that a word is the beginning of, or but two letters away from, one if it is short.
func similar(cmd *cobra.Command, word string) []string {
	cmd.SuggestionsMinimumDistance = min(2, len(word)/3)
	near := cmd.SuggestionsFor(word)
	slices.Sort(near)
	return near
}
