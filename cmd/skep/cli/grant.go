package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

func (p *program) grantCommand() *cobra.Command {
	return group("grant", "Manage privileges beyond the default container's", p.grantCreate(), p.grantList(),
		p.completed(grantWords, p.grantInspect()), p.completed(grantWords, p.grantRemove()), p.completed(grantWords, p.grantUpdate()))
}

// grantFlags are those of grant create.
type grantFlags struct {
	description        string
	operators          bool
	labels, nodeLabels flagvalue.Labels
	capabilities       flagvalue.List
	devices            flagvalue.Devices
	mounts             flagvalue.HostMounts
	options            flagvalue.List
	pid, ipc, userns   flagvalue.Namespace
	network            flagvalue.Network
	ignoreHooks        bool
}

func (p *program) grantCreate() *cobra.Command {
	f := &grantFlags{}
	cmd := &cobra.Command{
		Use: "create [OPTIONS] GRANT", Short: "Create a grant: privileges that services get by its name",
		Long: "Create a grant: privileges that services get by its name, in place of --privileged.\n\n" +
			"A container of a service that names it (service create --grant GRANT) has all that is in it.\n" +
			"'skep grant update' changes it for all of them.",
		Args: exactArgs(1),
	}
	flags := cmd.Flags()
	flags.Var(&f.capabilities, "cap-add", "Give Linux capabilities")
	flags.Var(&f.devices, "device", "Give a device of the host (format: PATH[:rw], or vendor.com/class=name for CDI)")
	flags.BoolVar(&f.ignoreHooks, "ignore-cdi-hooks", false, "Give CDI devices without the hooks that they have")
	flags.Var(&f.mounts, "mount-host", "Give a file or directory of the host (format: SOURCE[:TARGET][:ro,rslave])")
	flags.Var(&f.options, "security-opt", "Allow services to ask for a security option")
	flags.Var(&f.pid, "pid", `Allow services to ask for the host's PID namespace ("host")`)
	flags.Var(&f.ipc, "ipc", `Allow services to ask for the host's IPC namespace ("host")`)
	flags.Var(&f.userns, "userns", `Allow services to ask for the host's user namespace ("host")`)
	flags.Var(&f.network, "network", `Allow services to ask for the host's network ("host")`)
	flags.StringVar(&f.description, "description", "", "Say why it is there")
	flags.VarP(&f.labels, "label", "l", "Grant labels")
	flags.Var(&f.nodeLabels, "node-label", "Only on nodes that have this label")
	flags.BoolVar(&f.operators, "operators", false, "Let operators use it, too")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		answer, err := c.Control.CreateGrant(ctx, &api.CreateGrantRequest{Spec: f.spec(args[0])})
		if err != nil {
			return err
		}
		return p.printf("%s\n", answer.GetGrant().GetId())
	})
	return cmd
}

func (f *grantFlags) spec(name string) *api.GrantSpec {
	return &api.GrantSpec{
		Annotations: &api.Annotations{Name: name, Labels: f.labels}, Description: f.description, Operators: f.operators,
		Capabilities: f.capabilities, Devices: f.devices.Files, CdiDevices: f.devices.CDI, IgnoreCdiHooks: f.ignoreHooks, Mounts: f.mounts, SecurityOptions: f.allowed(), NodeLabels: f.nodeLabels,
	}
}

// allowed are the options that services may ask for, those with a flag of their own among them.
func (f *grantFlags) allowed() []string {
	out := slices.Clone(f.options)
	for _, n := range []struct {
		name string
		host bool
	}{{"pid", f.pid.Host()}, {"ipc", f.ipc.Host()}, {"userns", f.userns.Host()}, {"network", f.network.Host()}} {
		if option := n.name + "=host"; n.host && !slices.Contains(out, option) {
			out = append(out, option)
		}
	}
	return out
}

// grantRow is a line of `grant ls`.
type grantRow struct {
	ID          string
	Name        string
	Gives       string
	For         string
	CreatedAt   string
	Description string
	Labels      string
	labels      map[string]string
}

// Label returns the value of one label.
func (r grantRow) Label(name string) string { return r.labels[name] }

const grantTable = "{{.Name}}\t{{.Gives}}\t{{.For}}\t{{.CreatedAt}}\t{{.Description}}"

func (p *program) grantList() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List grants", Args: noArgs,
	}
	flags.register(cmd, "Only display IDs", listFormatHelp, "id", "label", "name")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		answer, err := c.Control.ListGrants(ctx, &api.ListGrantsRequest{})
		if err != nil {
			return err
		}
		var objects []view.Grant
		var rows []grantRow
		for _, grant := range sortedBy(answer.GetGrants(), grantName) {
			v := view.NewGrant(grant)
			if !flags.filter.Prefix("id", v.ID) || !flags.filter.Prefix("name", v.Spec.Name) || !flags.filter.Labels("label", v.Spec.Labels) {
				continue
			}
			objects, rows = append(objects, v), append(rows, p.grantRow(v))
		}
		header := grantRow{
			ID: "ID", Name: "NAME", Gives: "GIVES", For: "FOR", CreatedAt: "CREATED", Description: "DESCRIPTION", Labels: "LABELS",
		}
		return writeList(p.out, &flags, grantTable, objects, header, rows)
	})
	return cmd
}

func (p *program) grantRow(g view.Grant) grantRow {
	row := grantRow{
		ID: g.ID, Name: g.Spec.Name, Gives: strings.Join(g.Gives(), ", "), For: "admins", CreatedAt: p.age(g.CreatedAt),
		Description: g.Spec.Description, Labels: joinLabels(g.Spec.Labels), labels: g.Spec.Labels,
	}
	if g.Spec.Operators {
		row.For = "admins, operators"
	}
	return row
}

func grantName(g *api.Grant) string { return g.GetSpec().GetAnnotations().GetName() }

func grantWords(ctx context.Context, c *client.Client) ([]string, error) {
	answer, err := c.Control.ListGrants(ctx, &api.ListGrantsRequest{})
	return mapped(answer.GetGrants(), grantName), err
}

func (p *program) grantInspect() *cobra.Command {
	var flags inspectFlags
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] GRANT [GRANT...]", Short: "Display detailed information on one or more grants", Args: minArgs(1),
	}
	flags.register(cmd)
	flags.registerPretty(cmd)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		get := func(name string) (view.Grant, error) {
			answer, err := c.Control.GetGrant(ctx, &api.GetGrantRequest{Grant: name})
			return view.NewGrant(answer.GetGrant()), err
		}
		return inspectPretty(p, &flags, args, get, prettyGrant)
	})
	return cmd
}

func prettyGrant(g view.Grant) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ID:              %s\nName:            %s\n", g.ID, g.Spec.Name)
	writePrettyLabels(&b, g.Spec.Labels)
	if g.Spec.Description != "" {
		fmt.Fprintf(&b, "Description:     %s\n", g.Spec.Description)
	}
	fmt.Fprintf(&b, "Operators:       %v\nGives:\n", g.Spec.Operators)
	for _, what := range g.Gives() {
		fmt.Fprintf(&b, " - %s\n", what)
	}
	if len(g.Spec.NodeLabels) > 0 {
		fmt.Fprintf(&b, "On nodes with:   %s\n", joinLabels(g.Spec.NodeLabels))
	}
	fmt.Fprintf(&b, "Created at:      %s\n", prettyTime(g.CreatedAt))
	return b.String()
}

func (p *program) grantRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm GRANT [GRANT...]", Aliases: []string{"remove"}, Short: "Remove one or more grants that nobody has", Args: minArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return each(args, func(name string) error {
				if _, err := c.Control.RemoveGrant(ctx, &api.RemoveGrantRequest{Grant: name}); err != nil {
					return err
				}
				return p.printf("%s\n", name)
			})
		}),
	}
}
