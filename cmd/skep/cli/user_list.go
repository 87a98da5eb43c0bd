package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

// userRow is a line of `user ls`.
type userRow struct {
	ID          string
	Name        string
	Role        string
	Status      string
	Expires     string
	CreatedAt   string
	Fingerprint string
	Labels      string
	labels      map[string]string
}

// Label returns the value of one label.
func (r userRow) Label(name string) string { return r.labels[name] }

const userTable = "{{.Name}}\t{{.Role}}\t{{.Status}}\t{{.Expires}}\t{{.CreatedAt}}"

func (p *program) userList() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List users", Args: noArgs,
	}
	flags.register(cmd, "Only display IDs", listFormatHelp, "id", "label", "name", "role", "status")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		answer, err := c.Control.ListUsers(ctx, &api.ListUsersRequest{})
		if err != nil {
			return err
		}
		var objects []view.User
		var rows []userRow
		for _, user := range sortedBy(answer.GetUsers(), userName) {
			v := view.NewUser(user)
			if !p.listsUser(&flags, v) {
				continue
			}
			objects, rows = append(objects, v), append(rows, p.userRow(v))
		}
		header := userRow{
			ID: "ID", Name: "NAME", Role: "ROLE", Status: "STATUS", Expires: "EXPIRES", CreatedAt: "CREATED", Fingerprint: "FINGERPRINT", Labels: "LABELS",
		}
		return writeList(p.out, &flags, userTable, objects, header, rows)
	})
	return cmd
}

// listsUser reports whether the filters let a user through.
func (p *program) listsUser(flags *listFlags, u view.User) bool {
	return flags.filter.Prefix("id", u.ID) && flags.filter.Prefix("name", u.Spec.Name) && flags.filter.Prefix("role", u.Spec.Role) &&
		flags.filter.Prefix("status", u.Status(p.opts.Now())) && flags.filter.Labels("label", u.Spec.Labels)
}

func (p *program) userRow(u view.User) userRow {
	row := userRow{
		ID: u.ID, Name: u.Spec.Name, Role: u.Spec.Role, Status: u.Status(p.opts.Now()), CreatedAt: p.age(u.CreatedAt),
		Fingerprint: u.Fingerprint, Labels: joinLabels(u.Spec.Labels), labels: u.Spec.Labels, Expires: "external",
	}
	if u.ExpiresAt != nil {
		row.Expires = u.ExpiresAt.UTC().Format("2006-01-02 15:04 MST")
	}
	return row
}

func userName(u *api.User) string { return u.GetSpec().GetAnnotations().GetName() }

func userWords(ctx context.Context, c *client.Client) ([]string, error) {
	answer, err := c.Control.ListUsers(ctx, &api.ListUsersRequest{})
	return mapped(answer.GetUsers(), userName), err
}

func (p *program) userRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke USER [USER...]", Short: "Refuse one or more users from now on, on every manager", Args: minArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return each(args, func(name string) error {
				if _, err := c.Control.RevokeUser(ctx, &api.RevokeUserRequest{User: name}); err != nil {
					return err
				}
				return p.printf("%s\n", name)
			})
		}),
	}
}
