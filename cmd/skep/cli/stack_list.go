package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/internal/fault"
)

// stackRow is a line of `stack ls`, and with --json an object.
type stackRow struct {
	Name     string
	Services string
}

func (p *program) stackList() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List stacks", Args: noArgs}
	flags.registerFormat(cmd, listFormatHelp, listJSONHelp)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		counts, err := stackCounts(ctx, c)
		if err != nil {
			return err
		}
		var rows []stackRow
		for _, name := range slices.Sorted(maps.Keys(counts)) {
			rows = append(rows, stackRow{name, strconv.Itoa(counts[name])})
		}
		return writeList(p.out, &flags, "{{.Name}}\t{{.Services}}", rows, stackRow{"NAME", "SERVICES"}, rows)
	})
	return cmd
}

func (p *program) stackPs() *cobra.Command {
	var flags psFlags
	cmd := &cobra.Command{Use: "ps [OPTIONS] STACK", Short: "List the tasks in the stack", Args: exactArgs(1)}
	flags.register(cmd, "id", "label", "name", "node")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		services, err := stackServices(ctx, c, args[0])
		if err != nil {
			return err
		}
		if len(services) == 0 {
			return nothingInStack(args[0])
		}
		return p.writeTasks(ctx, c, &flags, &api.ListTasksRequest{ServiceIds: mapped(services, (*api.Service).GetId)}, nil)
	})
	return cmd
}

// nothingInStack says so, in Docker's words.
func nothingInStack(stack string) error {
	return fault.New(fault.NotFound, "nothing found in stack: %s: `skep stack ls` lists those that there are", stack)
}

func (p *program) stackServices() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{Use: "services [OPTIONS] STACK", Short: "List the services in the stack", Args: exactArgs(1)}
	flags.register(cmd, "Only display IDs", listFormatHelp, serviceFilters()...)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		answer, err := c.Control.ListServices(ctx, &api.ListServicesRequest{})
		if err != nil {
			return err
		}
		services := onlyOfStack(answer.GetServices(), args[0])
		if len(services) == 0 {
			fmt.Fprintf(p.err, "Nothing found in stack: %s\n", args[0])
			return nil
		}
		return p.writeServices(&flags, services, answer.GetCounts())
	})
	return cmd
}
