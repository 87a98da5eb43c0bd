package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/servicespec"
	"github.com/skep-io/skep/internal/fault"
)

// waitFlags say whether and how a change of a service is watched.
type waitFlags struct{ detach, quiet bool }

func (w *waitFlags) register(cmd *cobra.Command, withQuiet bool) {
	cmd.Flags().BoolVarP(&w.detach, "detach", "d", false, "Exit immediately instead of waiting for the service to converge")
	if withQuiet {
		cmd.Flags().BoolVarP(&w.quiet, "quiet", "q", false, "Suppress progress output")
	}
}

func (p *program) serviceCreate() *cobra.Command {
	var flags servicespec.Create
	var wait waitFlags
	var dry planFlags
	cmd := &cobra.Command{
		Use: "create [OPTIONS] IMAGE [COMMAND] [ARG...]", Short: "Create a new service", Args: minArgs(1),
	}
	flags.Register(cmd.Flags())
	wait.register(cmd, true)
	dry.register(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return dry.check(cmd) }
	// What follows the image belongs to the service's command.
	cmd.Flags().SetInterspersed(false)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		spec, err := flags.Spec(ctx, args[0], args[1:], p.opts.LookupEnv, resolveValue(c))
		if err != nil {
			return err
		}
		if dry.dryRun {
			return p.plan(ctx, c, &api.PlanServiceRequest{Spec: spec}, &dry)
		}
		answer, err := c.Control.CreateService(ctx, &api.CreateServiceRequest{Spec: spec})
		if err != nil {
			return err
		}
		p.warn(answer.GetWarnings())
		return p.changed(ctx, c, answer.GetService().GetId(), answer.GetService(), wait)
	})
	return cmd
}

// resolveValue looks up secrets and configs for a spec.
func resolveValue(c *client.Client) servicespec.Resolve {
	return func(ctx context.Context, kind, name string) (string, string, error) {
		k := secrets()
		if kind == servicespec.Config {
			k = configs()
		}
		v, err := k.get(ctx, c, name)
		if fault.KindOf(err) == fault.NotFound {
			return "", "", fault.New(fault.NotFound, "%[1]s not found: %[2]s: 'skep %[1]s create %[2]s FILE' makes it", kind, name)
		}
		return v.ID, v.Spec.Name, err
	}
}

// warn tells a person what a manager found odd.
func (p *program) warn(warnings []string) {
	for _, warning := range warnings {
		fmt.Fprintf(p.err, "WARNING: %s\n", output.Printable(warning))
	}
}

func (p *program) serviceUpdate() *cobra.Command {
	var flags servicespec.Update
	var way updateWay
	var wait waitFlags
	var dry planFlags
	cmd := &cobra.Command{
		Use: "update [OPTIONS] SERVICE", Short: "Update a service", Args: exactArgs(1),
	}
	flags.Register(cmd.Flags())
	way.register(cmd.Flags())
	wait.register(cmd, true)
	dry.register(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := cmp.Or(flags.Check(), way.check(cmd.LocalFlags())); err != nil {
			return &usageError{command: cmd, err: err}
		}
		return dry.check(cmd)
	}
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		if dry.dryRun && way.rollback {
			return p.plan(ctx, c, &api.PlanServiceRequest{Service: args[0], Rollback: true}, &dry)
		}
		if dry.dryRun {
			return p.planUpdate(ctx, c, args[0], &flags, &dry)
		}
		if way.given() {
			return way.run(ctx, p, c, args[0], wait)
		}
		var missing []string
		answer, err := changeService(ctx, c, args[0], func(spec *api.ServiceSpec) (*api.ServiceSpec, error) {
			missing = flags.Missing(spec)
			return flags.Apply(ctx, spec, p.opts.LookupEnv, resolveValue(c))
		})
		if err != nil {
			return err
		}
		p.warn(append(missing, answer.GetWarnings()...))
		return p.changed(ctx, c, args[0], answer.GetService(), wait)
	})
	return cmd
}

// changeService writes what change makes of a service's present spec.
func changeService(ctx context.Context, c *client.Client, name string, change func(*api.ServiceSpec) (*api.ServiceSpec, error),
) (*api.UpdateServiceResponse, error) {
	var answer *api.UpdateServiceResponse
	err := untilCurrent(func() error {
		service, spec, err := rewritten(ctx, c, name, change)
		if err != nil {
			return err
		}
		answer, err = c.Control.UpdateService(ctx, &api.UpdateServiceRequest{
			ServiceId: service.GetId(), Version: service.GetMeta().GetVersion(), Spec: spec,
		})
		return err
	})
	return answer, err
}

// rewritten returns a service, and what change makes of its spec.
func rewritten(ctx context.Context, c *client.Client, name string, change func(*api.ServiceSpec) (*api.ServiceSpec, error),
) (*api.Service, *api.ServiceSpec, error) {
	present, err := c.Control.GetService(ctx, &api.GetServiceRequest{Service: name})
	if err != nil {
		return nil, nil, err
	}
	spec, err := change(present.GetService().GetSpec())
	return present.GetService(), spec, err
}

// scale is one argument of `service scale`.
type scale struct {
	service  string
	replicas uint64
}

// apply returns a service's spec with the replicas.
func (s scale) apply(spec *api.ServiceSpec) (*api.ServiceSpec, error) {
	if err := servicespec.SetReplicas(spec, s.replicas, "scale"); err != nil {
		return nil, fmt.Errorf("%s: %w", s.service, err)
	}
	return spec, nil
}

func parseScale(text string) (scale, error) {
	service, number, ok := strings.Cut(text, "=")
	if !ok || service == "" {
		return scale{}, fmt.Errorf("invalid scale specifier '%s': write SERVICE=REPLICAS", text)
	}
	replicas, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		return scale{}, fmt.Errorf("%s: invalid replicas value %s: must be a whole number, 0 or more", service, number)
	}
	return scale{service, replicas}, nil
}

func (p *program) serviceScale() *cobra.Command {
	var wait waitFlags
	var dry planFlags
	cmd := &cobra.Command{
		Use: "scale [OPTIONS] SERVICE=REPLICAS [SERVICE=REPLICAS...]", Short: "Scale one or multiple replicated services",
		Args: minArgs(1),
	}
	wait.register(cmd, false)
	dry.register(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return dry.check(cmd) }
	run := func(scales []scale) func(context.Context, *client.Client, []string) error {
		return func(ctx context.Context, c *client.Client, _ []string) error {
			if dry.dryRun {
				return p.planScale(ctx, c, scales, &dry)
			}
			return p.runScale(ctx, c, scales, wait)
		}
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		scales := make([]scale, 0, len(args))
		for _, arg := range args {
			scale, err := parseScale(arg)
			if err != nil {
				return &usageError{command: cmd, err: err}
			}
			scales = append(scales, scale)
		}
		return p.connected(run(scales))(cmd, args)
	}
	return cmd
}

// planScale shows what would become of the services. An error of one outweighs that others would change.
func (p *program) planScale(ctx context.Context, c *client.Client, scales []scale, dry *planFlags) error {
	var failed failures
	var changes error
	for _, s := range scales {
		answer, err := planChange(ctx, c, s.service, s.apply)
		if err == nil {
			err = p.showPlan(answer, dry)
		}
		switch {
		case errors.Is(err, errChanges):
			changes = err
		case err != nil:
			failed = append(failed, err)
		}
	}
	return cmp.Or(failed.orNil(), changes)
}

func (p *program) runScale(ctx context.Context, c *client.Client, scales []scale, wait waitFlags) error {
	var failed failures
	var changed []*api.Service
	for _, s := range scales {
		answer, err := changeService(ctx, c, s.service, s.apply)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		p.warn(answer.GetWarnings())
		changed = append(changed, answer.GetService())
		if err := p.printf("%s scaled to %d\n", s.service, s.replicas); err != nil {
			return err
		}
	}
	if !wait.detach {
		for _, service := range changed {
			if err := p.waitFor(ctx, c, service, wait.quiet); err != nil {
				failed = append(failed, err)
			}
			if ctx.Err() != nil {
				break // nobody waits for the others either
			}
		}
	}
	return failed.orNil()
}
