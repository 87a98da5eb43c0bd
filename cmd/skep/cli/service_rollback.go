package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
)

func (p *program) serviceRollback() *cobra.Command {
	var wait waitFlags
	var revision uint64
	var dry planFlags
	cmd := &cobra.Command{
		Use: "rollback [OPTIONS] SERVICE", Short: "Revert changes to a service's configuration", Args: exactArgs(1),
	}
	wait.register(cmd, true)
	cmd.Flags().Uint64Var(&revision, "to", 0, "Revision to go back to, as 'service history' lists them (default the previous one)")
	dry.register(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("to") && revision == 0 {
			return &usageError{command: cmd, err: errors.New("--to: revisions are numbered from 1: 'skep service history' lists them")}
		}
		return dry.check(cmd)
	}
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		if dry.dryRun {
			return p.plan(ctx, c, &api.PlanServiceRequest{Service: args[0], Rollback: true, Revision: revision}, &dry)
		}
		return p.rollback(ctx, c, args[0], revision, wait)
	})
	return cmd
}

// rollback puts a former spec of a service in force again: that of a revision, or with 0 the previous one.
func (p *program) rollback(ctx context.Context, c *client.Client, name string, revision uint64, wait waitFlags) error {
	answer, err := c.Control.RollbackService(ctx, &api.RollbackServiceRequest{Service: name, Revision: revision})
	if err != nil {
		return err
	}
	p.warn(answer.GetWarnings())
	return p.changed(ctx, c, name, answer.GetService(), wait)
}

// changed names a service that was made or changed, and waits for it.
func (p *program) changed(ctx context.Context, c *client.Client, name string, service *api.Service, wait waitFlags) error {
	if err := p.printf("%s\n", name); err != nil || wait.detach {
		return err
	}
	return p.waitFor(ctx, c, service, wait.quiet)
}

// updateWay are the flags of `service update` that change how an update goes, and no spec.
type updateWay struct{ rollback, pause, resume bool }

func (u *updateWay) register(set *pflag.FlagSet) {
	set.BoolVar(&u.pause, "pause", false, "Stop the update or rollback that is under way where it is")
	set.BoolVar(&u.resume, "resume", false, "Go on with an update or rollback that is paused")
	set.BoolVar(&u.rollback, "rollback", false, "Rollback to previous specification")
}

// given reports whether one of them was.
func (u *updateWay) given() bool { return u.rollback || u.pause || u.resume }

// check returns an error when another flag comes with one of them; set has the command's own flags.
func (u *updateWay) check(set *pflag.FlagSet) error {
	var given, others []string
	set.VisitAll(func(flag *pflag.Flag) {
		switch {
		case !flag.Changed || flag.Name == "detach" || flag.Name == "quiet":
		case u.rollback && (flag.Name == "dry-run" || flag.Name == "format"): // a rollback can be planned
		case slices.Contains([]string{"rollback", "pause", "resume"}, flag.Name):
			given = append(given, flag.Name)
		default:
			others = append(others, flag.Name)
		}
	})
	if all := slices.Concat(given, others); len(given) > 0 && len(all) > 1 {
		return fmt.Errorf("other flags may not be combined with --%s: leave out --%s", all[0], all[1])
	}
	return nil
}

// run does what the flag asks for.
func (u *updateWay) run(ctx context.Context, p *program, c *client.Client, name string, wait waitFlags) error {
	if u.rollback {
		return p.rollback(ctx, c, name, 0, wait)
	}
	answer, err := c.Control.PauseServiceUpdate(ctx, &api.PauseServiceUpdateRequest{Service: name, Resume: u.resume})
	if err != nil {
		return err
	}
	wait.detach = wait.detach || u.pause
	return p.changed(ctx, c, name, answer.GetService(), wait)
}
