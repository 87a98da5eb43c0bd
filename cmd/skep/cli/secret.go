package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

// maxSecret is the size of a secret in bytes: the managers take no larger one.
const maxSecret = 512000

func (p *program) secretCommand() *cobra.Command {
	return group("secret", "Manage Swarm secrets", p.secretCreate(), p.secretList(), p.completed(secretWords, p.secretInspect()),
		p.completed(secretWords, p.secretRemove()))
}

func (p *program) secretCreate() *cobra.Command {
	var labels flagvalue.Labels
	cmd := &cobra.Command{
		Use: "create [OPTIONS] SECRET [file|-]", Short: "Create a secret from a file or STDIN as content",
		Args: rangeArgs(1, 2),
	}
	cmd.Flags().VarP(&labels, "label", "l", "Secret labels")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		data, err := p.readSecret(ctx, args[0], args[1:])
		if err != nil {
			return err
		}
		defer clear(data)
		answer, err := c.Control.CreateSecret(ctx, &api.CreateSecretRequest{Spec: &api.SecretSpec{
			Annotations: &api.Annotations{Name: args[0], Labels: labels}, Data: data,
		}})
		if err != nil {
			return err
		}
		return p.printf("%s\n", answer.GetSecret().GetId())
	})
	return cmd
}

// readSecret reads a secret's value from a file, or from the input stream for - and for no file.
func (p *program) readSecret(ctx context.Context, name string, file []string) ([]byte, error) {
	in := p.input(ctx)
	switch {
	case len(file) == 1 && file[0] != "-":
		opened, err := flagvalue.OpenFile(file[0])
		if err != nil {
			return nil, fault.New(fault.KindOf(err), "error reading from %s: %w", file[0], err)
		}
		defer opened.Close()
		in = opened
	case len(file) == 0 && p.opts.IsTerminal(p.in):
		// Typing a secret would leave it on the screen.
		return nil, fault.New(fault.Invalid, "secret file is required: name a file, or pipe the value in, "+
			"as in `printf %%s VALUE | skep secret create %s -`", name)
	}
	data, err := io.ReadAll(io.LimitReader(in, maxSecret+1))
	switch {
	case ctx.Err() != nil:
		return nil, err
	case err != nil:
		return nil, fault.Wrap(fault.Invalid, fmt.Errorf("read the value of secret %s: %w", name, err))
	case len(data) == 0:
		return nil, fault.New(fault.Invalid, "secret %s is empty: give it a value of 1 to %d bytes", name, maxSecret)
	case len(data) > maxSecret:
		clear(data)
		return nil, fault.New(fault.Invalid, "secret %s is larger than %d bytes: keep large data elsewhere, and its key here",
			name, maxSecret)
	}
	return data, nil
}

// secretRow is a line of `secret ls`. The driver column is Docker's; there are no drivers.
type secretRow struct {
	ID        string
	Name      string
	Driver    string
	CreatedAt string
	UpdatedAt string
	Labels    string
	labels    map[string]string
}

// Label returns the value of one label.
func (r secretRow) Label(name string) string { return r.labels[name] }

const secretTable = "{{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.CreatedAt}}\t{{.UpdatedAt}}"

func (p *program) secretList() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List secrets", Args: noArgs,
	}
	flags.register(cmd, "Only display IDs", listFormatHelp, "id", "label", "name")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		answer, err := c.Control.ListSecrets(ctx, &api.ListSecretsRequest{})
		if err != nil {
			return err
		}
		var objects []view.Secret
		var rows []secretRow
		for _, secret := range sortedBy(answer.GetSecrets(), secretName) {
			v := view.NewSecret(secret)
			if !flags.filter.Prefix("id", v.ID) || !flags.filter.Prefix("name", v.Spec.Name) ||
				!flags.filter.Labels("label", v.Spec.Labels) {
				continue
			}
			objects = append(objects, v)
			rows = append(rows, secretRow{
				ID: v.ID, Name: v.Spec.Name, CreatedAt: p.age(v.CreatedAt), UpdatedAt: p.age(v.UpdatedAt),
				Labels: joinLabels(v.Spec.Labels), labels: v.Spec.Labels,
			})
		}
		header := secretRow{ID: "ID", Name: "NAME", Driver: "DRIVER", CreatedAt: "CREATED", UpdatedAt: "UPDATED", Labels: "LABELS"}
		return writeList(p.out, &flags, secretTable, objects, header, rows)
	})
	return cmd
}

func secretName(s *api.Secret) string { return s.GetSpec().GetAnnotations().GetName() }

func (p *program) secretInspect() *cobra.Command {
	var flags inspectFlags
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] SECRET [SECRET...]", Short: "Display detailed information on one or more secrets",
		Args: minArgs(1),
	}
	flags.register(cmd)
	flags.registerPretty(cmd)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		get := func(name string) (view.Secret, error) {
			answer, err := c.Control.GetSecret(ctx, &api.GetSecretRequest{Secret: name})
			return view.NewSecret(answer.GetSecret()), err
		}
		return inspectAll(args, get, func(found []view.Secret) error {
			if flags.pretty {
				return p.eachPretty(len(found), func(i int) string { return prettySecret(found[i]) })
			}
			return output.Objects(p.out, flags.template(), found)
		})
	})
	return cmd
}

func prettySecret(s view.Secret) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ID:              %s\nName:            %s\n", s.ID, s.Spec.Name)
	writePrettyLabels(&b, s.Spec.Labels)
	fmt.Fprintf(&b, "Created at:      %s\nUpdated at:      %s\n", prettyTime(s.CreatedAt), prettyTime(s.UpdatedAt))
	return b.String()
}

func (p *program) secretRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm SECRET [SECRET...]", Aliases: []string{"remove"}, Short: "Remove one or more secrets", Args: minArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return each(args, func(name string) error {
				if _, err := c.Control.RemoveSecret(ctx, &api.RemoveSecretRequest{Secret: name}); err != nil {
					return err
				}
				return p.printf("%s\n", name)
			})
		}),
	}
}
