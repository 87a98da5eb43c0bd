package cli_test

import (
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/skep-io/skep/cmd/skep/cli"
)

// dockerFlag is a flag as a help page prints it.
type dockerFlag struct{ shorthand, kind, fallback string }

// dockerFlags reads Docker's flags by command and name.
func dockerFlags(t *testing.T) map[string]map[string]dockerFlag {
	t.Helper()
	data, err := os.ReadFile("testdata/docker-flags.txt")
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]map[string]dockerFlag{}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		parts := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(parts) != 5 {
			t.Fatalf("malformed line %q", line)
		}
		if out[parts[0]] == nil {
			out[parts[0]] = map[string]dockerFlag{}
		}
		out[parts[0]][parts[2]] = dockerFlag{parts[1], parts[3], parts[4]}
	}
	return out
}

// commands calls fn for every command below root that does something, with its path without the program's name.
func commands(root *cobra.Command, fn func(path string, cmd *cobra.Command)) {
	for _, cmd := range root.Commands() {
		if cmd.HasSubCommands() {
			commands(cmd, fn)
			if len(cmd.ValidArgs) == 0 {
				continue
			}
		}
		fn(strings.TrimPrefix(cmd.CommandPath(), "skep "), cmd)
	}
}

// TestFlags_AreDockers keeps I4.
func TestFlags_AreDockers(t *testing.T) {
	docker := dockerFlags(t)
	compared := 0
	commands(cli.New(nil, io.Discard, io.Discard, cli.Options{}), func(path string, cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			want, ok := docker[path][flag.Name]
			if !ok {
				return
			}
			compared++
			if got := asPrinted(flag); got != want {
				t.Errorf("skep %s --%s: got %+v, want Docker's %+v", path, flag.Name, got, want)
			}
		})
	})
	if compared < 150 {
		t.Errorf("only %d flags were compared: the list or the commands are gone", compared)
	}
}

// ownFlags are those of ours on commands that Docker has, beside --json and --quiet of inspections, and why.
func ownFlags() map[string]string {
	return map[string]string{
		"swarm ca abort":                 "Swarm goes back by rotating to the former root, whose key people don't have",
		"swarm init data-key-rotation":   "Swarm's data keys change only with the unlock key",
		"swarm update data-key-rotation": "likewise",
		"swarm init backup-schedule":     "Swarm makes no backups",
		"swarm init backup-dir":          "likewise",
		"swarm init backup-retention":    "likewise",
		"swarm update backup-schedule":   "likewise",
		"swarm update backup-dir":        "likewise",
		"swarm update backup-retention":  "likewise",
		"service create grant":           "Swarm grants nothing beyond the default but capabilities, to anybody who asks",
		"service update grant-add":       "likewise",
		"service update grant-rm":        "likewise",
		"service inspect security":       "Swarm has no default that one can be held against",
		"context create skep":            "it is Docker's --docker",
		"context ls filter":              "every list of ours has it",
		"swarm update audit-retention":   "Swarm keeps no audit log",
		"service logs until":             "docker logs has it",
		"service logs grep":              "the nodes look for what is wanted, instead of sending all",
		"volume create node":             "Docker's volumes are those of the one engine that is asked",
		"volume inspect node":            "likewise",
		"volume rm node":                 "likewise",
		"volume prune node":              "likewise",
		"node update timeout":            "Swarm stops all tasks of a drained node at once",
		"node update detach":             "Swarm does not wait for a drain",
		"node update quiet":              "likewise",
		"events from":                    "Docker's events have no index to go on from",
		"service create dry-run":         "Swarm can't be asked what it would do",
		"service create format":          "of the plan",
		"service update dry-run":         "Swarm can't be asked what it would do",
		"service update format":          "of the plan",
		"service scale dry-run":          "Swarm can't be asked what it would do",
		"service scale format":           "of the plan",
		"service rollback dry-run":       "Swarm can't be asked what it would do",
		"service rollback format":        "of the plan",
		"service rollback to":            "Swarm keeps one former spec",
		"service create group-add":       "docker run's and service update's word for --group",
		"service create ipc":             "docker run's; host needs a grant",
		"service update ipc":             "likewise",
		"service create pid":             "docker run's; host needs a grant",
		"service update pid":             "likewise",
		"service create secret-offline":  "Swarm's tasks with secrets can't start without a manager",
		"service update secret-offline":  "likewise",
		"service create storage-size":    "docker run's --storage-opt size=",
		"service update storage-size":    "likewise",
		"service create shm-size":        "docker run's",
		"service update shm-size":        "likewise",
		"service create tmpfs":           "docker run's, shorter than --mount",
		"service create strategy":        "Swarm only spreads",
		"service update strategy":        "likewise",
		"swarm update require":           "Swarm places tasks whatever isolates them",
		"service create security-opt":    "docker run has it; Swarm's services can't be isolated otherwise than by default",
		"service update security-opt":    "likewise",
		"service create userns":          "likewise",
		"service update userns":          "likewise",
	}
}

// runFlags are limits that `docker run` has, and Swarm never gave to services; and that of the network, which Docker leaves to people with tc.
func runFlags() []string {
	return []string{"memory-swap", "cpuset-cpus", "device-read-bps", "device-write-bps", "device-read-iops", "device-write-iops", "limit-network-bps"}
}

// updateFlags are those of updates: Swarm's wait for ever for a task that no node takes.
// They go on by hand only with a new spec, and don't stop by hand.
func updateFlags() []string {
	return []string{"update-deadline", "rollback-deadline", "pause", "resume"}
}

// restartFlags are those of a delay that grows: Swarm's is the same for ever.
func restartFlags() []string { return []string{"restart-backoff", "restart-max-delay"} }

// readyFlags are those of readiness checks: Docker's health is readiness and liveness at once, so that what has no work for now is killed.
func readyFlags() []string {
	return []string{"ready-cmd", "ready-interval", "ready-retries", "ready-start-interval", "ready-start-period", "ready-timeout", "no-ready"}
}

// TestFlags_BesideDockersAreFew keeps our own flags to those that have a reason.
func TestFlags_BesideDockersAreFew(t *testing.T) {
	docker, own := dockerFlags(t), ownFlags()
	commands(cli.New(nil, io.Discard, io.Discard, cli.Options{}), func(path string, cmd *cobra.Command) {
		cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
			if _, ok := docker[path][flag.Name]; ok || flag.Name == "help" || flag.Name == "json" {
				return
			}
			if docker[path] == nil || own[path+" "+flag.Name] != "" {
				return // a command of our own, or a flag with a reason
			}
			if (path == "service create" || path == "service update") && (slices.Contains(slices.Concat(restartFlags(), runFlags(), readyFlags()), flag.Name) || slices.Contains(updateFlags(), flag.Name)) {
				return
			}
			if flag.Name == "quiet" && strings.HasSuffix(path, " inspect") {
				return
			}
			if strings.HasPrefix(path, "backup ") {
				return // Docker has no such command
			}
			t.Errorf("skep %s --%s is no flag of Docker's: say here why it is needed", path, flag.Name)
		})
	})
}

// asPrinted returns the flag as its help page shows it.
func asPrinted(flag *pflag.Flag) dockerFlag {
	dash := func(text string) string {
		if text == "" {
			return "-"
		}
		return text
	}
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	set.AddFlag(flag)
	kind, _ := pflag.UnquoteUsage(flag)
	out := dockerFlag{kind: dash(kind), fallback: "-"}
	if out.shorthand = "-"; flag.Shorthand != "" {
		out.shorthand = "-" + flag.Shorthand
	}
	page := strings.TrimSpace(set.FlagUsages())
	if found := regexp.MustCompile(`\(default ([^)]*)\)$`).FindStringSubmatch(page); found != nil {
		out.fallback = found[1]
	}
	return out
}
