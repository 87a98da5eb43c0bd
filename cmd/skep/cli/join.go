package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/fault"
)

// approvalPause is the time between two questions whether a person has let this machine in.
const approvalPause = 2 * time.Second

func (p *program) swarmJoin() *cobra.Command {
	var node nodeFlags
	var token string
	cmd := &cobra.Command{
		Use: "join [OPTIONS] HOST:PORT", Short: "Join a swarm as a node and/or manager", Args: exactArgs(1),
	}
	node.register(cmd)
	cmd.Flags().StringVar(&token, "token", "", "Token for entry into the swarm")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		availability, err := parseAvailability(node.availability)
		if err != nil {
			return err
		}
		if token == "" {
			return fault.New(fault.Invalid, "a join token is necessary: add --token; "+
				"'skep swarm join-token worker' on a manager prints the whole command")
		}
		remote, err := flagvalue.RemoteAddr(args[0])
		if err != nil {
			return fault.Wrap(fault.Invalid, err)
		}
		answer, err := p.join(ctx, c, &api.JoinSwarmRequest{
			Token: strings.TrimSpace(token), RemoteAddresses: []string{remote}, ListenAddress: node.listen.String(),
			AdvertiseAddress: node.advertise, Availability: availability,
		})
		if err != nil {
			return err
		}
		if answer.GetRole() == api.Role_ROLE_MANAGER {
			return p.printf("This node joined a swarm as a manager.\n")
		}
		return p.printf("This node joined a swarm as a worker.\n")
	})
	return cmd
}

// join joins, and waits for a person if one has to let this machine in. Each question is the whole request again, so nothing is lost
// when the daemon or the managers restart meanwhile.
func (p *program) join(ctx context.Context, c *client.Client, request *api.JoinSwarmRequest) (*api.JoinSwarmResponse, error) {
	answer, err := c.Daemon.JoinSwarm(ctx, request)
	if err != nil || !answer.GetPending() {
		return answer, err
	}
	if err := p.writeWaiting(answer); err != nil {
		return nil, err
	}
	trouble := ""
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(p.opts.ApprovalPause):
		}
		again, err := c.Daemon.JoinSwarm(ctx, request)
		switch {
		case err == nil && !again.GetPending():
			return again, nil
		case err != nil && fault.KindOf(err) != fault.Unavailable:
			return nil, err
		case err != nil && err.Error() != trouble:
			trouble = err.Error()
			_, _ = fmt.Fprintf(p.err, "still waiting: %s\n", trouble)
		}
	}
}

func (p *program) writeWaiting(answer *api.JoinSwarmResponse) error {
	return p.printf("This node waits for approval to join the swarm.\n\n    Node:            %s\n    Key fingerprint: %s\n\n"+
		"To let it in, compare the fingerprint and run the following command on a manager:\n\n    skep node approve %s\n\n"+
		"Ctrl-C ends the wait here; the same command goes on with it.\n", answer.GetNodeId(), answer.GetKeyFingerprint(), answer.GetNodeId())
}
