package cli

import (
	"context"
	"maps"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/fault"
)

// changeNode applies change to a node's present spec; change returns false when there is nothing to do. Then the answer is nil.
func changeNode(ctx context.Context, c *client.Client, name string, change func(*api.NodeSpec) (bool, error)) (*api.UpdateNodeResponse, error) {
	var answer *api.UpdateNodeResponse
	err := untilCurrent(func() error {
		node, err := getNode(ctx, c, name)
		if err != nil {
			return err
		}
		spec := node.GetSpec()
		if spec == nil {
			spec = &api.NodeSpec{}
		}
		if changed, err := change(spec); err != nil || !changed {
			return err
		}
		answer, err = c.Control.UpdateNode(ctx, &api.UpdateNodeRequest{
			NodeId: node.GetId(), Version: node.GetMeta().GetVersion(), Spec: spec,
		})
		return err
	})
	return answer, err
}

func (p *program) nodePromote() *cobra.Command {
	return p.nodeRoleCommand("promote", "Promote one or more nodes to manager in the swarm", api.Role_ROLE_MANAGER,
		"Node %s promoted to a manager in the swarm.\n", "Node %s is already a manager.\n")
}

func (p *program) nodeDemote() *cobra.Command {
	return p.nodeRoleCommand("demote", "Demote one or more nodes from manager in the swarm", api.Role_ROLE_WORKER,
		"Manager %s demoted in the swarm.\n", "Node %s is already a worker.\n")
}

func (p *program) nodeRoleCommand(name, short string, role api.Role, done, already string) *cobra.Command {
	return &cobra.Command{
		Use: name + " NODE [NODE...]", Short: short, Args: minArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return each(args, func(node string) error {
				answer, err := changeNode(ctx, c, node, func(spec *api.NodeSpec) (bool, error) {
					different := spec.GetDesiredRole() != role
					spec.DesiredRole = role
					return different, nil
				})
				switch {
				case err != nil:
					return err
				case answer == nil:
					return p.printf(already, node)
				}
				return p.printf(done, node)
			})
		}),
	}
}

// nodeUpdateFlags are those of `node update`.
type nodeUpdateFlags struct {
	availability, role string
	labelAdd           flagvalue.Labels
	labelRemove        flagvalue.List
	drain              drainFlags
}

func (p *program) nodeUpdate() *cobra.Command {
	var flags nodeUpdateFlags
	cmd := &cobra.Command{Use: "update [OPTIONS] NODE", Short: "Update a node", Args: exactArgs(1)}
	cmd.Flags().StringVar(&flags.availability, "availability", "", `Availability of the node ("active", "pause", "drain")`)
	cmd.Flags().StringVar(&flags.role, "role", "", `Role of the node ("worker", "manager")`)
	cmd.Flags().Var(&flags.labelAdd, "label-add", `Add or update a node label ("key=value")`)
	cmd.Flags().Var(&flags.labelRemove, "label-rm", "Remove a node label if exists")
	flags.drain.register(cmd)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return flags.drain.check(cmd, flags.drains()) }
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		answer, err := changeNode(ctx, c, args[0], func(spec *api.NodeSpec) (bool, error) { return true, flags.apply(spec) })
		if err != nil {
			return err
		}
		p.warn(answer.GetWarnings())
		if err := p.printf("%s\n", args[0]); err != nil || !flags.drains() || flags.drain.wait.detach {
			return err
		}
		return p.awaitDrain(ctx, c, answer.GetNode(), flags.drain.wait.quiet)
	})
	return cmd
}

// drains reports whether the node is to be emptied.
func (f *nodeUpdateFlags) drains() bool { return strings.EqualFold(f.availability, "drain") }

func (f *nodeUpdateFlags) apply(spec *api.NodeSpec) error {
	var err error
	if f.availability != "" {
		if spec.Availability, err = parseAvailability(f.availability); err != nil {
			return err
		}
		spec.DrainTimeout = f.drain.limit()
	}
	if f.role != "" {
		if spec.DesiredRole, err = parseRole(f.role); err != nil {
			return err
		}
	}
	if spec.Annotations == nil {
		spec.Annotations = &api.Annotations{}
	}
	for _, key := range f.labelRemove {
		if _, ok := spec.Annotations.Labels[key]; !ok {
			return fault.New(fault.NotFound, "key %s doesn't exist in node's labels", key)
		}
		delete(spec.Annotations.Labels, key)
	}
	if spec.Annotations.Labels == nil {
		spec.Annotations.Labels = map[string]string{}
	}
	maps.Copy(spec.Annotations.Labels, f.labelAdd)
	return nil
}
