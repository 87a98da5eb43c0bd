package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

func (p *program) configCommand() *cobra.Command {
	return p.valueCommand(configs(), "Manage Swarm configs", p.valueCreate(configs(), &cobra.Command{
		Use: "create [OPTIONS] CONFIG file|-", Short: "Create a config from a file or STDIN", Args: exactArgs(2),
	}, "Config labels"))
}

func configs() valueKind {
	return valueKind{
		noun: "config", most: 1024000, table: "{{.ID}}\t{{.Name}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
		create: func(ctx context.Context, c *client.Client, name *api.Annotations, data []byte, template string) (string, error) {
			answer, err := c.Control.CreateConfig(ctx, &api.CreateConfigRequest{Spec: &api.ConfigSpec{Annotations: name, Data: data, TemplateDriver: template}})
			return answer.GetConfig().GetId(), err
		},
		get: func(ctx context.Context, c *client.Client, name string) (view.Value, error) {
			answer, err := c.Control.GetConfig(ctx, &api.GetConfigRequest{Config: name})
			return view.NewConfig(answer.GetConfig()), err
		},
		list: func(ctx context.Context, c *client.Client) ([]view.Value, error) {
			answer, err := c.Control.ListConfigs(ctx, &api.ListConfigsRequest{})
			return mapped(answer.GetConfigs(), view.NewConfig), err
		},
		remove: func(ctx context.Context, c *client.Client, name string) error {
			_, err := c.Control.RemoveConfig(ctx, &api.RemoveConfigRequest{Config: name})
			return err
		},
		update: func(ctx context.Context, c *client.Client, name string, change *api.ValueChange) (valueUpdate, error) {
			answer, err := c.Control.UpdateConfig(ctx, &api.UpdateConfigRequest{Config: name, Change: change})
			return valueUpdate{answer.GetConfig().GetVersion(), answer.GetServices(), answer.GetRewritten()}, err
		},
	}
}
