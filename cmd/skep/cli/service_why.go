package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

// whyRow is a line of `service why`.
type whyRow struct {
	Service string
	Task    string
	Node    string
	Verdict string
	Why     string
}

const whyTable = "{{.Node}}\t{{.Verdict}}\t{{.Why}}"

func (p *program) serviceWhy() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "why [OPTIONS] [SERVICE|TASK]", Short: "Explain where tasks are placed, and why not elsewhere",
		Long: "Explain where tasks are placed, and why not elsewhere: of each node what refuses a task, or how it compares with the others,\n" +
			"and the smallest change by which a node would take one. Slots that lack a task because theirs ended come first, with the error.\n\n" +
			"Without a name it is about every service with tasks that wait for a node. A task that runs is asked about as if it did not.",
		Args: rangeArgs(0, 1),
	}
	flags.registerFormat(cmd, listFormatHelp, "Print a JSON array")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		request := &api.ExplainPlacementRequest{}
		if len(args) > 0 {
			request.Target = args[0]
		}
		answer, err := c.Control.ExplainPlacement(ctx, request)
		if err != nil {
			return err
		}
		if n := answer.GetLeftOut(); n > 0 {
			p.warn([]string{fmt.Sprintf("%d more are left out: ask about them by name", n)})
		}
		placings := view.NewPlacings(answer.GetPlacings())
		if flags.format != "" || flags.json {
			return p.formatPlacings(&flags, placings)
		}
		if len(placings) == 0 {
			return p.printf("No task waits for a node.\n")
		}
		for i, placing := range placings {
			if err := p.writePlacing(placing, i > 0); err != nil {
				return err
			}
		}
		return nil
	})
	return cmd
}

// formatPlacings writes placings as JSON, or a line for each node.
func (p *program) formatPlacings(flags *listFlags, placings []view.Placing) error {
	flags.json = flags.json || flags.format == "json" // what a node's verdict consists of fits in no line
	var rows []whyRow
	for _, placing := range placings {
		rows = append(rows, whyRows(placing)...)
	}
	return writeList(p.out, flags, whyTable, placings, whyHeader(), rows)
}

func whyHeader() whyRow {
	return whyRow{Service: "SERVICE", Task: "TASK", Node: "NODE", Verdict: "VERDICT", Why: "WHY"}
}

// writePlacing writes one placing for people.
func (p *program) writePlacing(placing view.Placing, apart bool) error {
	if apart {
		if err := p.printf("\n"); err != nil {
			return err
		}
	}
	for _, line := range append(placing.FailureTexts(), placing.Title()) {
		if err := p.printf("%s\n", output.Printable(line)); err != nil {
			return err
		}
	}
	list, err := output.ParseList("", whyTable, false)
	if err != nil {
		return err
	}
	if err := output.WriteList(p.out, list, whyHeader(), whyRows(placing)); err != nil {
		return err
	}
	if placing.NodesLeftOut > 0 {
		if err := p.printf("… and %d nodes more\n", placing.NodesLeftOut); err != nil {
			return err
		}
	}
	if len(placing.Changes) == 0 {
		return nil
	}
	var texts []string
	for _, change := range placing.Changes {
		texts = append(texts, change.Text)
	}
	if err := p.printf("Smallest change: %s\n", output.Printable(strings.Join(texts, ", and "))); err != nil {
		return err
	}
	for _, change := range placing.Changes {
		if change.Command == "" {
			continue
		}
		if err := p.printf("    %s\n", output.Printable(change.Command)); err != nil {
			return err
		}
	}
	return nil
}

// whyRows returns a line for each node.
func whyRows(placing view.Placing) (rows []whyRow) {
	for i, node := range placing.Nodes {
		row := whyRow{Service: placing.ServiceName, Task: placing.TaskID, Node: node.Hostname, Verdict: "would take it"}
		var parts []string
		for _, score := range node.Scores {
			parts = append(parts, fmt.Sprintf("%s: %d", score.Name, score.Value))
		}
		if i == 0 {
			row.Verdict = "comes first"
		}
		if len(node.Refusals) > 0 {
			row.Verdict = "refused"
			for _, refusal := range node.Refusals {
				parts = append(parts, refusal.Filter+": "+refusal.Reason)
			}
		}
		row.Why = strings.Join(parts, "; ")
		rows = append(rows, row)
	}
	return rows
}
