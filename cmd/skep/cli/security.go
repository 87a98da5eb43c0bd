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
	"github.com/skep-io/skep/internal/fault"
)

// inspectSecurity shows in what services differ from the default container: for people, or in the format asked for.
func (p *program) inspectSecurity(ctx context.Context, c *client.Client, flags *inspectFlags, names []string) error {
	get := func(name string) (view.ServiceSecurity, error) {
		answer, err := c.Control.GetServiceSecurity(ctx, &api.GetServiceSecurityRequest{Service: name})
		return view.NewServiceSecurity(answer), err
	}
	return inspectAll(names, get, func(found []view.ServiceSecurity) error {
		if !flags.json && flags.format == "" {
			return p.eachPretty(len(found), func(i int) string { return prettySecurity(found[i]) })
		}
		return output.Objects(p.out, flags.template(), found)
	})
}

func prettySecurity(s view.ServiceSecurity) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Name:\t%s\nScore:\t%d of 100\n", s.ServiceName, s.Score)
	if len(s.Grants) > 0 {
		fmt.Fprintf(&b, "Grants:\t%s\n", strings.Join(s.Grants, ", "))
	}
	write := func(title string, stricter bool) {
		for _, d := range s.Differences {
			if d.Stricter != stricter {
				continue
			}
			b.WriteString(title)
			title = ""
			fmt.Fprintf(&b, " - %s", d.What)
			if d.Grant != "" {
				fmt.Fprintf(&b, ", by grant %s", d.Grant)
			}
			if d.Points > 0 {
				fmt.Fprintf(&b, " (-%d)", d.Points)
			}
			fmt.Fprintf(&b, "\n   %s\n", d.Why)
		}
	}
	write("Weaker than the default container:\n", false)
	write("Stricter than the default container:\n", true)
	if len(s.Differences) == 0 {
		b.WriteString("As the default container.\n")
	}
	return b.String()
}

// keyLine says how the key is held that seals the disk of the manager that was asked; not where a program reads.
func (p *program) keyLine(ctx context.Context, c *client.Client, quiet bool) error {
	if quiet {
		return nil
	}
	info, err := c.Daemon.GetInfo(ctx, &api.GetInfoRequest{})
	if err != nil {
		return err
	}
	return p.printf("\nKey of the disk of %s: %s\n", info.GetHostname(), info.GetKeyProtection())
}

// checkRow is a line of `doctor`.
type checkRow struct{ ID, Result, Title, Reason, Services string }

const checkTable = "{{.ID}}\t{{.Result}}\t{{.Title}}\t{{.Reason}}\t{{.Services}}"

func (p *program) doctorCommand() *cobra.Command {
	var node string
	var flags listFlags
	cmd := &cobra.Command{
		Use: "doctor [OPTIONS]", Short: "Check the tasks that run against the CIS Docker Benchmark, section 5",
		Long: "Check the tasks that run against the CIS Docker Benchmark, section 5, item by item.\n\n" +
			"What an administrator granted is a warning that names the grant. The exit code is 6 when a check fails.\n" +
			"The last line says how the key is held that seals the disk of the manager which was asked.",
		Args: noArgs,
	}
	cmd.Flags().StringVar(&node, "node", "", "Only the tasks on this node")
	flags.registerFormat(cmd, listFormatHelp, listJSONHelp)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		answer, err := c.Control.CheckSecurity(ctx, &api.CheckSecurityRequest{Node: node})
		if err != nil {
			return err
		}
		var checks []view.SecurityCheck
		var rows []checkRow
		failed := 0
		for _, check := range answer.GetChecks() {
			v := view.NewSecurityCheck(check)
			checks = append(checks, v)
			rows = append(rows, checkRow{v.ID, v.Result, v.Title, v.Reason, strings.Join(v.Services, ", ")})
			if check.GetResult() == api.CheckResult_CHECK_RESULT_FAIL {
				failed++
			}
		}
		header := checkRow{"ID", "RESULT", "CHECK", "REASON", "SERVICES"}
		if err := writeList(p.out, &flags, checkTable, checks, header, rows); err != nil {
			return err
		}
		if err := p.keyLine(ctx, c, flags.json || flags.format != ""); err != nil {
			return err
		}
		if failed > 0 {
			return fault.New(fault.Precondition, "%d of %d checks fail, of %d running tasks", failed, len(checks), answer.GetTasks())
		}
		return nil
	})
	return cmd
}
