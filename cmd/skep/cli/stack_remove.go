package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/internal/fault"
)

// removalPause is the time between two looks whether tasks have ended.
const removalPause = 200 * time.Millisecond

func (p *program) stackRemove() *cobra.Command {
	detach := true
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] STACK [STACK...]", Aliases: []string{"remove", "down"}, Short: "Remove one or more stacks", Args: minArgs(1),
	}
	cmd.Flags().BoolVarP(&detach, "detach", "d", true, "Do not wait for stack removal")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		return each(args, func(stack string) error {
			if err := p.removeStack(ctx, c, stack, detach); err != nil {
				return fault.New(fault.KindOf(err), "stack %s: %w", stack, err)
			}
			return nil
		})
	})
	return cmd
}

// removeStack removes all that a stack has. What fails leaves the rest to be removed.
func (p *program) removeStack(ctx context.Context, c *client.Client, stack string, detach bool) error {
	var failed failures
	services, err := stackServices(ctx, c, stack)
	if err != nil {
		return err
	}
	if err := p.removeServices(ctx, c, services); err != nil {
		failed = append(failed, err)
	}
	found := len(services)
	for _, k := range stackKinds() {
		values, err := stackValues(ctx, c, k, stack)
		if err == nil {
			err = p.removeValues(ctx, c, k, values)
		}
		if err != nil {
			failed = append(failed, err)
		}
		found += len(values)
	}
	if found == 0 && len(failed) == 0 {
		fmt.Fprintf(p.err, "Nothing found in stack: %s\n", stack)
	}
	if len(failed) > 0 || detach || len(services) == 0 {
		return failed.orNil()
	}
	return p.tasksEnd(ctx, c, mapped(services, (*api.Service).GetId))
}

// tasksEnd waits until services that were removed have no task any more.
func (p *program) tasksEnd(ctx context.Context, c *client.Client, services []string) error {
	for {
		answer, err := c.Control.ListTasks(ctx, &api.ListTasksRequest{ServiceIds: services})
		if err != nil || len(answer.GetTasks()) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return &interruptedError{check: "skep node ps"}
		case <-time.After(removalPause):
		}
	}
}
