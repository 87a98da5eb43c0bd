package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
)

func (p *program) nodeApprove() *cobra.Command {
	var fingerprint string
	cmd := &cobra.Command{
		Use: "approve [OPTIONS] NODE", Short: "Let a node into the swarm that waits for approval", Args: exactArgs(1),
	}
	cmd.Flags().StringVar(&fingerprint, "fingerprint", "", "Refuse unless this is the fingerprint of the node's key")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		answer, err := c.Control.ApproveNode(ctx, &api.ApproveNodeRequest{Node: args[0], KeyFingerprint: fingerprint})
		if err != nil {
			return err
		}
		return p.writeDecision("approved", answer.GetNode())
	})
	return cmd
}

func (p *program) nodeDeny() *cobra.Command {
	return &cobra.Command{
		Use: "deny NODE [NODE...]", Short: "Deny nodes that wait for approval", Args: minArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return each(args, func(name string) error {
				answer, err := c.Control.DenyNode(ctx, &api.DenyNodeRequest{Node: name})
				if err != nil {
					return err
				}
				return p.writeDecision("denied", answer.GetNode())
			})
		}),
	}
}

func (p *program) writeDecision(decision string, node *api.Node) error {
	return p.printf("Node %s (%s) %s.\nKey fingerprint: %s\n", node.GetId(), hostnameOf(node), decision, node.GetApproval().GetKeyFingerprint())
}
