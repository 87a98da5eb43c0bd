package cli_test

import (
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
