package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/servicespec"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

// errChanges is returned when a change was only planned, and is one. Its plan was printed: there is nothing more to say.
var errChanges = errors.New("there are changes")

// planRow is a line about a task.
type planRow struct{ Task, Action, Node, Why string }

const planTable = "{{.Task}}\t{{.Action}}\t{{.Node}}\t{{.Why}}"

// planFlags say whether a change is only planned, and how the plan is printed.
type planFlags struct {
	dryRun bool
	format string
}

func (f *planFlags) register(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.dryRun, "dry-run", false, "Show what would change, and change nothing; exit with 8 if something would")
	f.registerFormat(cmd)
}

func (f *planFlags) registerFormat(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.format, "format", "", "Format of the plan: 'table' (default) or 'json'")
}

// check refuses flags that mean nothing.
func (f *planFlags) check(cmd *cobra.Command) error {
	switch {
	case f.format != "" && f.format != "table" && f.format != "json":
		return &usageError{command: cmd, err: fmt.Errorf("--format %s: a plan is printed as 'table' or 'json'", f.format)}
	case f.format != "" && !f.dryRun:
		return &usageError{command: cmd, err: errors.New("--format is for --dry-run: give both")}
	}
	return nil
}

func (p *program) servicePlan() *cobra.Command {
	flags := planFlags{dryRun: true}
	var update servicespec.Update
	cmd := &cobra.Command{
		Use: "plan [OPTIONS] SERVICE", Short: "Show what an update of a service would do", Args: exactArgs(1),
		Long: "Show what 'service update' with the same options would do, and change nothing: in what the spec would differ, which tasks are\n" +
			"replaced, and where they go. The exit code is 8 if something would change.",
	}
	update.Register(cmd.Flags())
	flags.registerFormat(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := update.Check(); err != nil {
			return &usageError{command: cmd, err: err}
		}
		return flags.check(cmd)
	}
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		return p.planUpdate(ctx, c, args[0], &update, &flags)
	})
	return cmd
}

// planUpdate shows what the flags would make of a service.
func (p *program) planUpdate(ctx context.Context, c *client.Client, name string, update *servicespec.Update, flags *planFlags) error {
	var missing []string
	answer, err := planChange(ctx, c, name, func(spec *api.ServiceSpec) (*api.ServiceSpec, error) {
		missing = update.Missing(spec)
		return update.Apply(ctx, spec, p.opts.LookupEnv, resolveValue(c))
	})
	if err != nil {
		return err
	}
	p.warn(missing)
	return p.showPlan(answer, flags)
}

// planChange asks what would become of a service by what change makes of its present spec.
func planChange(ctx context.Context, c *client.Client, name string, change func(*api.ServiceSpec) (*api.ServiceSpec, error)) (answer *api.PlanServiceResponse, err error) {
	err = untilCurrent(func() error {
		service, spec, err := rewritten(ctx, c, name, change)
		if err != nil {
			return err
		}
		answer, err = c.Control.PlanService(ctx, &api.PlanServiceRequest{
			Service: service.GetId(), Version: service.GetMeta().GetVersion(), Spec: spec,
		})
		return err
	})
	return answer, err
}

// plan asks for a plan that needs no present spec, and shows it.
func (p *program) plan(ctx context.Context, c *client.Client, request *api.PlanServiceRequest, flags *planFlags) error {
	answer, err := c.Control.PlanService(ctx, request)
	if err != nil {
		return err
	}
	return p.showPlan(answer, flags)
}

// showPlan prints a plan, and returns errChanges if it is one.
func (p *program) showPlan(answer *api.PlanServiceResponse, flags *planFlags) error {
	p.warn(answer.GetWarnings())
	plan := view.NewPlan(answer)
	write := p.writePlan
	if flags.format == "json" {
		write = func(plan view.Plan) error { return output.Indented(p.out, plan) }
	}
	if err := write(plan); err != nil {
		return err
	}
	if len(plan.Changes) > 0 {
		return errChanges
	}
	return nil
}

// writePlan writes a plan for people.
func (p *program) writePlan(plan view.Plan) error {
	if len(plan.Changes) == 0 {
		return p.printf("%s: nothing would change\n", output.Printable(plan.ServiceName))
	}
	for _, change := range plan.Changes {
		if err := p.printf("%s\n", output.Printable(change.String())); err != nil {
			return err
		}
	}
	if err := p.printf("\n"); err != nil {
		return err
	}
	list, err := output.ParseList("", planTable, false)
	if err != nil {
		return err
	}
	var rows []planRow
	for _, t := range plan.Tasks {
		rows = append(rows, newPlanRow(plan.ServiceName, t))
	}
	if err := output.WriteList(p.out, list, planRow{"TASK", "ACTION", "NODE", "WHY"}, rows); err != nil {
		return err
	}
	if plan.TasksLeftOut > 0 {
		if err := p.printf("… and %d tasks more\n", plan.TasksLeftOut); err != nil {
			return err
		}
	}
	if plan.Update == nil {
		return nil
	}
	return p.printf("%s\n", output.Printable(plan.Update.String()))
}

func newPlanRow(service string, t view.PlannedTask) planRow {
	row := planRow{Task: view.TaskName(cmp.Or(service, "(new)"), t.Slot), Action: t.Action, Node: t.Hostname, Why: t.Why}
	switch {
	case t.ToNodeID != "" && t.NodeID != "" && t.ToNodeID != t.NodeID:
		row.Node = t.Hostname + " -> " + t.ToHostname
	case t.ToNodeID != "":
		row.Node = t.ToHostname
	case t.Refusal != "":
		row.Node, row.Why = "nowhere", t.Refusal
	}
	return row
}
