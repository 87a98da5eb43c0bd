package cli_test

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/skep-io/skep/cmd/skep/cli"
)

// TestUnknownCommand_NamesCommandsThatThereAre: for each of Docker's commands that skep hasn't.
func TestUnknownCommand_NamesCommandsThatThereAre(t *testing.T) {
	named := regexp.MustCompile(`'skep ([a-z ]+)`)
	for _, word := range strings.Fields("build compose create images inspect load logs network ps pull push restart rm rmi run start stop update") {
		root := cli.New(nil, io.Discard, io.Discard, cli.Options{})
		root.SetArgs([]string{word})
		err := root.Execute()
		if err == nil {
			t.Errorf("skep %s is a command", word)
			continue
		}
		hints := named.FindAllStringSubmatch(err.Error(), -1)
		if len(hints) == 0 && word != "network" {
			t.Errorf("skep %s: %q names no command", word, err)
		}
		for _, hint := range hints {
			path := strings.Fields(hint[1])
			if cmd, rest, err := root.Find(path); err != nil || len(rest) > 0 || !cmd.Runnable() {
				t.Errorf("skep %s: there is no command %q", word, hint[1])
			}
		}
	}
}

// TestUnknownFlag_NamesFlagsThatThereAre: for each of docker run's flags that skep's commands have by another name.
func TestUnknownFlag_NamesFlagsThatThereAre(t *testing.T) {
	named := regexp.MustCompile(`--([a-z-]+)`)
	for _, line := range []string{
		"service create --cpus=1", "service create --device=/dev/kvm", "service create --gpus=all", "service create -m 1g",
		"service create --memory=1g", "service create --memory-reservation=1g", "service create --pids-limit=5", "service create --privileged",
		"service create --restart=always", "service create --stop-timeout=5", "service create -v a:/b", "service create --volume=a:/b",
		"service create --with-registry-auth", "service create --endpoint-mode=vip",
		"service create --isolation=hyperv", "service create --no-resolve-image", "service update --with-registry-auth", "stack deploy --with-registry-auth",
		"exec --privileged", "exec --detach-keys=x",
	} {
		words := strings.Fields(line)
		root := cli.New(nil, io.Discard, io.Discard, cli.Options{})
		root.SetArgs(words)
		parts := strings.SplitN(fmt.Sprint(root.Execute()), ": ", 3) // such as "unknown flag", "--memory" and the hint
		if len(parts) < 3 {
			t.Errorf("skep %s: %q says nothing to type", line, parts)
			continue
		}
		grant, _, _ := root.Find([]string{"grant", "create"})
		command, _, _ := root.Find(words[:len(words)-1])
		for _, flag := range named.FindAllStringSubmatch(parts[2], -1) {
			if command.Flags().Lookup(flag[1]) == nil && grant.Flags().Lookup(flag[1]) == nil {
				t.Errorf("skep %s: there is no flag --%s", line, flag[1])
			}
		}
	}
}
