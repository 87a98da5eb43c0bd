package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

// The defaults of join grants.
const (
	defaultGrantTTL  = 30 * time.Minute
	defaultGrantUses = 1
)

// swarmJoinToken is Docker's command for the standing tokens; the commands below it are ours.
func (p *program) swarmJoinToken() *cobra.Command {
	var quiet, rotate bool
	cmd := &cobra.Command{
		Use: "join-token [OPTIONS] (worker|manager)", Short: "Manage join tokens", Args: exactArgs(1),
		ValidArgs: []string{"worker", "manager"},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display token")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "Rotate join token")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		role, err := parseRole(args[0])
		if err != nil {
			return &usageError{command: cmd, err: errors.New("unknown role " + args[0])}
		}
		answer, err := c.Control.GetJoinToken(ctx, &api.GetJoinTokenRequest{Role: role, Rotate: rotate})
		if err != nil {
			return err
		}
		if quiet {
			return p.printf("%s\n", answer.GetToken())
		}
		if rotate {
			if err := p.printf("Successfully rotated %s join token.\n\n", args[0]); err != nil {
				return err
			}
		}
		return p.writeJoinCommand(args[0], answer.GetToken(), answer.GetManagerAddress())
	})
	cmd.AddCommand(p.joinTokenCreate(), p.joinTokenList(), p.completed(joinGrantWords, p.joinTokenRevoke()))
	return cmd
}

func (p *program) writeJoinCommand(role, token, address string) error {
	return p.printf("To add a %s to this swarm, run the following command:\n\n    skep swarm join --token %s %s\n\n", role, token, address)
}

// joinGrantFlags are those of `join-token create`.
type joinGrantFlags struct {
	role, name, from string
	ttl              time.Duration
	uses             uint32
	labels           flagvalue.Labels
	approval, quiet  bool
}

func (p *program) joinTokenCreate() *cobra.Command {
	var f joinGrantFlags
	cmd := &cobra.Command{
		Use: "create [OPTIONS]", Short: "Create a join token that ends by itself", Args: noArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.role, "role", "worker", `Role of the nodes ("worker", "manager")`)
	flags.DurationVar(&f.ttl, "ttl", defaultGrantTTL, "Time that the token is valid (ns|us|ms|s|m|h)")
	flags.Uint32Var(&f.uses, "uses", defaultGrantUses, "Number of nodes that may join")
	flags.StringVar(&f.name, "node-name", "", "Name that the node gets")
	flags.StringVar(&f.from, "from", "", "CIDR that the nodes must call from, such as 10.0.0.0/8 (default any)")
	flags.Var(&f.labels, "label", `Label that the nodes get ("key=value")`)
	flags.BoolVar(&f.approval, "require-approval", false, "Let each node wait for 'skep node approve'")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "Only display token")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		spec, err := f.spec()
		if err != nil {
			return err
		}
		answer, err := c.Control.CreateJoinGrant(ctx, &api.CreateJoinGrantRequest{Spec: spec})
		if err != nil {
			return err
		}
		if f.quiet {
			return p.printf("%s\n", answer.GetToken())
		}
		if err := p.writeJoinCommand(f.role, answer.GetToken(), answer.GetManagerAddress()); err != nil {
			return err
		}
		return p.writeGrant(view.NewJoinGrant(answer.GetGrant()))
	})
	return cmd
}

func (f *joinGrantFlags) spec() (*api.JoinGrantSpec, error) {
	role, err := parseRole(f.role)
	if err != nil {
		return nil, err
	}
	if f.uses == 0 {
		return nil, fault.New(fault.Invalid, "--uses must be 1 at least: 'skep swarm join-token %s' is the token without an end", f.role)
	}
	return &api.JoinGrantSpec{
		Role: role, Ttl: durationpb.New(f.ttl), MaxUses: f.uses, NodeName: f.name, From: f.from, NodeLabels: f.labels,
		RequireApproval: f.approval,
	}, nil
}

// writeGrant says what a new token is good for.
func (p *program) writeGrant(g view.JoinGrant) error {
	nodes := "1 node"
	if g.MaxUses > 1 {
		nodes = fmt.Sprintf("%d nodes", g.MaxUses)
	}
	text := fmt.Sprintf("The token is for %s until %s, and is shown only here.\n", nodes, g.ExpiresAt.UTC().Format(time.RFC3339))
	if g.From != "" {
		text += "It works from " + g.From + " only.\n"
	}
	if g.RequireApproval {
		text += "Each node then waits for 'skep node approve'; 'skep node ls' shows those that wait.\n"
	}
	return p.printf("%sTo end it before: skep swarm join-token revoke %s\n", text, g.ID)
}

// joinGrantRow is a line of `join-token ls`.
type joinGrantRow struct {
	ID       string
	Role     string
	Uses     string
	Expires  string
	NodeName string
	From     string
	Approval string
	Labels   string
}

const joinGrantTable = "{{.ID}}\t{{.Role}}\t{{.Uses}}\t{{.Expires}}\t{{.NodeName}}\t{{.From}}\t{{.Approval}}\t{{.Labels}}"

func (p *program) joinTokenList() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List join tokens that end by themselves", Args: noArgs,
	}
	flags.register(cmd, "Only display IDs", listFormatHelp, "id", "role=manager|worker")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		answer, err := c.Control.ListJoinGrants(ctx, &api.ListJoinGrantsRequest{})
		if err != nil {
			return err
		}
		var objects []view.JoinGrant
		var rows []joinGrantRow
		for _, grant := range sortedBy(answer.GetGrants(), grantExpiry) {
			v := view.NewJoinGrant(grant)
			if !flags.filter.Prefix("id", v.ID) || !flags.filter.Equal("role", v.Role) {
				continue
			}
			objects = append(objects, v)
			rows = append(rows, p.newGrantRow(v))
		}
		header := joinGrantRow{
			ID: "ID", Role: "ROLE", Uses: "USES", Expires: "EXPIRES", NodeName: "NODE NAME", From: "FROM", Approval: "APPROVAL", Labels: "LABELS",
		}
		return writeList(p.out, &flags, joinGrantTable, objects, header, rows)
	})
	return cmd
}

// grantExpiry is a key that sorts by time.
func grantExpiry(g *api.JoinGrant) string {
	return g.GetExpiresAt().AsTime().UTC().Format(time.RFC3339) + g.GetId()
}

func (p *program) newGrantRow(g view.JoinGrant) joinGrantRow {
	row := joinGrantRow{
		ID: g.ID, Role: g.Role, NodeName: g.NodeName, From: cmp.Or(g.From, "any"), Labels: joinLabels(g.NodeLabels), Approval: "no",
		Uses: fmt.Sprintf("%d/%d", g.Used(), g.MaxUses), Expires: "expired",
	}
	if left := g.ExpiresAt.Sub(p.opts.Now()); left > 0 {
		row.Expires = "in " + units.HumanDuration(left)
	}
	if g.RequireApproval {
		row.Approval = "required"
	}
	return row
}

func (p *program) joinTokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke TOKEN-ID [TOKEN-ID...]", Aliases: []string{"rm"}, Short: "Revoke join tokens, and remove the nodes that wait with them",
		Args: minArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return each(args, func(id string) error {
				answer, err := c.Control.RemoveJoinGrant(ctx, &api.RemoveJoinGrantRequest{JoinGrant: id})
				if err != nil {
					return err
				}
				return p.printf("%s\n", answer.GetJoinGrantId())
			})
		}),
	}
}

func joinGrantWords(ctx context.Context, c *client.Client) ([]string, error) {
	answer, err := c.Control.ListJoinGrants(ctx, &api.ListJoinGrantsRequest{})
	return mapped(answer.GetGrants(), (*api.JoinGrant).GetId), err
}
