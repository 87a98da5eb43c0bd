package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/compose"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

func (p *program) stackCommand() *cobra.Command {
	return group("stack", "Manage Swarm stacks", p.completed(stackWords, p.stackDeploy()), p.stackConfig(), p.stackList(),
		p.completed(stackWords, p.stackPs()), p.completed(stackWords, p.stackServices()), p.completed(stackWords, p.stackRemove()))
}

// stackSource are the flags for compose files.
type stackSource struct {
	files             []string
	skipInterpolation bool
}

func (s *stackSource) register(cmd *cobra.Command) {
	cmd.Flags().StringSliceVarP(&s.files, "compose-file", "c", nil, `Path to a Compose file, or "-" to read from stdin`)
}

// load reads the files for a stack; without a name they are left as they are. It tells the user what is odd in them.
func (p *program) loadStack(ctx context.Context, cmd *cobra.Command, s *stackSource, name string) (*types.Project, error) {
	if len(s.files) == 0 {
		return nil, &usageError{command: cmd, err: fmt.Errorf("please specify a Compose file (with --compose-file)")}
	}
	project, warnings, err := compose.Load(ctx, compose.Source{
		Files: s.files, Stdin: p.input(ctx), Environ: p.opts.Environ(), Name: name, SkipInterpolation: s.skipInterpolation,
	})
	p.warn(warnings)
	return project, err
}

func (p *program) stackConfig() *cobra.Command {
	var source stackSource
	cmd := &cobra.Command{
		Use: "config [OPTIONS]", Short: "Outputs the final config file, after doing merges and interpolations", Args: noArgs,
	}
	source.register(cmd)
	cmd.Flags().BoolVar(&source.skipInterpolation, "skip-interpolation", false, "Skip interpolation and output only merged config")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		project, err := p.loadStack(cmd.Context(), cmd, &source, "")
		if err != nil {
			return err
		}
		text, err := compose.Marshal(project)
		if err != nil {
			return err
		}
		return p.printf("%s", text)
	}
	return cmd
}

// tell writes a line about what a file names: a name is the managers' to check, and no terminal's to obey before that.
func (p *program) tell(format string, args ...any) error {
	return p.printf("%s\n", output.Printable(fmt.Sprintf(format, args...)))
}

// ofStack reports whether labels say that what has them belongs to a stack.
func ofStack(labels map[string]string, stack string) bool {
	return labels[compose.NamespaceLabel] == stack
}

// onlyOfStack returns those of the services that belong to a stack. It changes the slice.
func onlyOfStack(services []*api.Service, stack string) []*api.Service {
	return slices.DeleteFunc(services, func(s *api.Service) bool { return !ofStack(s.GetSpec().GetAnnotations().GetLabels(), stack) })
}

// stackServices returns the services of a stack, those made first first, and by name those made at once.
func stackServices(ctx context.Context, c *client.Client, stack string) ([]*api.Service, error) {
	answer, err := c.Control.ListServices(ctx, &api.ListServicesRequest{})
	services := onlyOfStack(answer.GetServices(), stack)
	slices.SortFunc(services, func(a, b *api.Service) int {
		return cmp.Or(a.GetMeta().GetCreatedAt().AsTime().Compare(b.GetMeta().GetCreatedAt().AsTime()), cmp.Compare(serviceName(a), serviceName(b)))
	})
	return services, err
}

// stackValues returns the secrets or configs of a stack, by name.
func stackValues(ctx context.Context, c *client.Client, k valueKind, stack string) ([]view.Value, error) {
	all, err := k.list(ctx, c)
	return sortedBy(slices.DeleteFunc(all, func(v view.Value) bool { return !ofStack(v.Spec.Labels, stack) }), valueName), err
}

// stackWords lists the names of stacks.
func stackWords(ctx context.Context, c *client.Client) ([]string, error) {
	counts, err := stackCounts(ctx, c)
	return slices.Sorted(maps.Keys(counts)), err
}

// stackCounts returns how many services each stack has.
func stackCounts(ctx context.Context, c *client.Client) (map[string]int, error) {
	answer, err := c.Control.ListServices(ctx, &api.ListServicesRequest{})
	counts := map[string]int{}
	for _, service := range answer.GetServices() {
		if stack := service.GetSpec().GetAnnotations().GetLabels()[compose.NamespaceLabel]; stack != "" {
			counts[stack]++
		}
	}
	return counts, err
}
