package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/output"
)

// compromise is what `node compromise --json` prints.
type compromise struct {
	NodeID     string
	Hostname   string
	Manager    bool
	DryRun     bool
	Secrets    []string
	Tasks      []string
	Identities []string
	Changed    []string
	Remaining  []string
}

func (p *program) nodeCompromise() *cobra.Command {
	var dryRun, asJSON bool
	cmd := &cobra.Command{
		Use: "compromise [OPTIONS] NODE", Short: "Shut a node out that somebody else may control, and say what it held", Args: exactArgs(1),
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "Only say what it holds and what would be changed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print indented JSON")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		node, err := getNode(ctx, c, args[0])
		if err != nil {
			return err
		}
		r, err := c.Control.CompromiseNode(ctx, &api.CompromiseNodeRequest{Node: node.GetId(), DryRun: dryRun})
		if err != nil {
			return err
		}
		report := compromise{
			NodeID: r.GetNodeId(), Hostname: r.GetHostname(), Manager: r.GetManager(), DryRun: dryRun, Secrets: r.GetSecrets(),
			Tasks: r.GetTasks(), Identities: r.GetIdentities(), Changed: r.GetChanged(), Remaining: r.GetRemaining(),
		}
		if asJSON {
			return output.Indented(p.out, report)
		}
		return p.printf("%s", report.page())
	})
	return cmd
}

// page is the report for people.
func (c compromise) page() string {
	var b strings.Builder
	verb, changed := "is shut out", "Changed"
	if c.DryRun {
		verb, changed = "would be shut out", "Would be changed"
	}
	fmt.Fprintf(&b, "Node %s (%s) %s: no certificate of its counts any more, and its tasks run elsewhere.\n", c.NodeID, c.Hostname, verb)
	if c.Manager {
		b.WriteString("It was a manager, and held all that the swarm knows.\n")
	}
	section := func(title string, lines []string) {
		if len(lines) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n%s:\n", title)
		for _, line := range lines {
			fmt.Fprintf(&b, "  %s\n", line)
		}
	}
	section("Secrets that it held", c.Secrets)
	section("Tasks that it ran", c.Tasks)
	section("Identities that its tasks had", c.Identities)
	section(changed, c.Changed)
	section("Left for you", c.Remaining)
	return b.String()
}
