package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
)

func (p *program) swarmRejoin() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rejoin [OPTIONS]", Short: "Get a damaged manager's store from the other managers", Args: noArgs,
		Long: "Get the cluster store of this manager anew from the other managers, when the one on its disk is damaged.\n\n" +
			"The node stays the one that it is. Its former store is kept until the manager has caught up, and then removed.",
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Also when the store is not damaged")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		request := &api.RejoinSwarmRequest{Force: force}
		answer, err := c.Daemon.RejoinSwarm(ctx, request)
		if err == nil && answer.GetNeedsUnlockKey() {
			if request.UnlockKey, err = p.readKeyLine(ctx, "unlock key"); err == nil {
				answer, err = c.Daemon.RejoinSwarm(ctx, request)
			}
		}
		if err != nil {
			return err
		}
		if !answer.GetCaughtUp() {
			return p.printf("Node %s joined the managers again and receives the state. Its former store is kept in %s until it has it.\n",
				answer.GetNodeId(), answer.GetFormerStore())
		}
		return p.printf("Node %s rejoined the swarm as a manager.\n", answer.GetNodeId())
	})
	return cmd
}
