package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

func (p *program) secretCommand() *cobra.Command {
	return p.valueCommand(secrets(), "Manage Swarm secrets", p.valueCreate(secrets(), &cobra.Command{
		Use: "create [OPTIONS] SECRET [file|-]", Short: "Create a secret from a file or STDIN as content", Args: rangeArgs(1, 2),
	}, "Secret labels"))
}

func secrets() valueKind {
	return valueKind{
		noun: "secret", most: 512000, table: "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}",
		create: func(ctx context.Context, c *client.Client, name *api.Annotations, data []byte, template string) (string, error) {
			answer, err := c.Control.CreateSecret(ctx, &api.CreateSecretRequest{Spec: &api.SecretSpec{Annotations: name, Data: data, TemplateDriver: template}})
			return answer.GetSecret().GetId(), err
		},
		get: func(ctx context.Context, c *client.Client, name string) (view.Value, error) {
			answer, err := c.Control.GetSecret(ctx, &api.GetSecretRequest{Secret: name})
			return view.NewSecret(answer.GetSecret()), err
		},
		list: func(ctx context.Context, c *client.Client) ([]view.Value, error) {
			answer, err := c.Control.ListSecrets(ctx, &api.ListSecretsRequest{})
			return mapped(answer.GetSecrets(), view.NewSecret), err
		},
		remove: func(ctx context.Context, c *client.Client, name string) error {
			_, err := c.Control.RemoveSecret(ctx, &api.RemoveSecretRequest{Secret: name})
			return err
		},
		update: func(ctx context.Context, c *client.Client, name string, change *api.ValueChange) (valueUpdate, error) {
			answer, err := c.Control.UpdateSecret(ctx, &api.UpdateSecretRequest{Secret: name, Change: change})
			return valueUpdate{answer.GetSecret().GetVersion(), answer.GetServices(), answer.GetRewritten()}, err
		},
	}
}
