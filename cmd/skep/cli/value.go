package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

// valueKind is secrets or configs: the commands of either are the same, and this is what differs.
type valueKind struct {
	// noun is the word for one, also as the name of the group of commands.
	noun string
	// most is the size of the largest in bytes: the managers take no larger one.
	most int
	// table is the format of `ls`.
	table string
	// The calls. get returns the data of a config.
	create func(ctx context.Context, c *client.Client, name *api.Annotations, data []byte, template string) (id string, err error)
	get    func(ctx context.Context, c *client.Client, name string) (view.Value, error)
	list   func(ctx context.Context, c *client.Client) ([]view.Value, error)
	remove func(ctx context.Context, c *client.Client, name string) error
	update func(ctx context.Context, c *client.Client, name string, change *api.ValueChange) (valueUpdate, error)
}

// valueUpdate is what a change did.
type valueUpdate struct {
	version uint64
	// The names of services: those whose tasks are replaced, and those whose tasks get the value in their files.
	replaced, rewritten []string
}

// words lists the names of all.
func (k valueKind) words(ctx context.Context, c *client.Client) ([]string, error) {
	all, err := k.list(ctx, c)
	return mapped(all, valueName), err
}

func valueName(v view.Value) string { return v.Spec.Name }

// valueCommand are the commands of a kind; create and short are its own.
func (p *program) valueCommand(k valueKind, short string, create *cobra.Command) *cobra.Command {
	return group(k.noun, short, create, p.valueList(k), p.completed(k.words, p.valueInspect(k)), p.completed(k.words, p.valueRemove(k)),
		p.completed(k.words, p.valueUpdate(k)))
}

// valueCreate completes a command that makes one.
func (p *program) valueCreate(k valueKind, cmd *cobra.Command, labelHelp string) *cobra.Command {
	var labels flagvalue.Labels
	var template string
	cmd.Flags().VarP(&labels, "label", "l", labelHelp)
	cmd.Flags().StringVar(&template, "template-driver", "", "Template driver (golang)")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		data, err := p.readValue(ctx, k, cmd.Name(), args[0], args[1:])
		if err != nil {
			return err
		}
		defer clear(data)
		id, err := k.create(ctx, c, &api.Annotations{Name: args[0], Labels: labels}, data, template)
		if err != nil {
			return err
		}
		return p.printf("%s\n", id)
	})
	return cmd
}

// readValue reads a value from a file, or from the input stream for - and for no file.
// verb is what is done with it.
func (p *program) readValue(ctx context.Context, k valueKind, verb, name string, file []string) ([]byte, error) {
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
		return nil, fault.New(fault.Invalid, "%[1]s file is required: name a file, or pipe the value in, "+
			"as in `printf %%s VALUE | skep %[1]s %[2]s %[3]s -`", k.noun, verb, name)
	}
	data, err := io.ReadAll(io.LimitReader(in, int64(k.most)+1))
	switch {
	case ctx.Err() != nil:
		return nil, err
	case err != nil:
		return nil, fault.Wrap(fault.Invalid, fmt.Errorf("read the value of %s %s: %w", k.noun, name, err))
	case len(data) == 0:
		return nil, fault.New(fault.Invalid, "%s %s is empty: give it a value of 1 to %d bytes", k.noun, name, k.most)
	case len(data) > k.most:
		clear(data)
		return nil, fault.New(fault.Invalid, "%s %s is larger than %d bytes: keep large data elsewhere, and its key here", k.noun, name, k.most)
	}
	return data, nil
}

// valueUpdate makes a new version of what there is, or changes its labels.
func (p *program) valueUpdate(k valueKind) *cobra.Command {
	var add flagvalue.Labels
	var remove flagvalue.List
	cmd := &cobra.Command{
		Use:   "update [OPTIONS] " + strings.ToUpper(k.noun) + " [file|-]",
		Short: "Give a " + k.noun + " a new value, from a file or STDIN, and have the services that follow it use that", Args: rangeArgs(1, 2),
	}
	cmd.Flags().Var(&add, "label-add", "Add or update a label")
	cmd.Flags().Var(&remove, "label-rm", "Remove a label by its key")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		change := &api.ValueChange{LabelAdd: add, LabelRemove: remove}
		if len(args) == 2 || len(add)+len(remove) == 0 {
			data, err := p.readValue(ctx, k, cmd.Name(), args[0], args[1:])
			if err != nil {
				return err
			}
			defer clear(data)
			change.Data = data
		}
		done, err := k.update(ctx, c, args[0], change)
		if err != nil {
			return err
		}
		if len(done.replaced) > 0 {
			fmt.Fprintf(p.err, "updated for version %d: %s\n", done.version, strings.Join(done.replaced, ", "))
		}
		if len(done.rewritten) > 0 {
			fmt.Fprintf(p.err, "version %d goes into the files of: %s\n", done.version, strings.Join(done.rewritten, ", "))
		}
		return p.printf("%s\n", args[0])
	})
	return cmd
}

// valueRow is a line of `ls`. The driver column is Docker's; there are no drivers.
type valueRow struct {
	ID        string
	Name      string
	Driver    string
	CreatedAt string
	UpdatedAt string
	Labels    string
	// ValueVersion is the newest; Services use any version, and Nodes have any, separated by commas.
	ValueVersion string
	Services     string
	Nodes        string
	labels       map[string]string
}

// Label returns the value of one label.
func (r valueRow) Label(name string) string { return r.labels[name] }

func (p *program) valueList(k valueKind) *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List " + k.noun + "s", Args: noArgs,
	}
	flags.register(cmd, "Only display IDs", listFormatHelp, "id", "label", "name")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		all, err := k.list(ctx, c)
		if err != nil {
			return err
		}
		var objects []view.Value
		var rows []valueRow
		for _, v := range sortedBy(all, valueName) {
			if !flags.filter.Prefix("id", v.ID) || !flags.filter.Prefix("name", v.Spec.Name) ||
				!flags.filter.Labels("label", v.Spec.Labels) {
				continue
			}
			objects = append(objects, v)
			rows = append(rows, valueRow{
				ID: v.ID, Name: v.Spec.Name, CreatedAt: p.age(v.CreatedAt), UpdatedAt: p.age(v.UpdatedAt),
				Labels: joinLabels(v.Spec.Labels), labels: v.Spec.Labels, ValueVersion: strconv.FormatUint(v.Newest(), 10),
				Services: strings.Join(v.Services(), ","), Nodes: strings.Join(v.Nodes(), ","),
			})
		}
		header := valueRow{
			ID: "ID", Name: "NAME", Driver: "DRIVER", CreatedAt: "CREATED", UpdatedAt: "UPDATED", Labels: "LABELS",
			ValueVersion: "VERSION", Services: "SERVICES", Nodes: "NODES",
		}
		return writeList(p.out, &flags, k.table, objects, header, rows)
	})
	return cmd
}

func (p *program) valueInspect(k valueKind) *cobra.Command {
	var flags inspectFlags
	upper := strings.ToUpper(k.noun)
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] " + upper + " [" + upper + "...]", Short: "Display detailed information on one or more " + k.noun + "s",
		Args: minArgs(1),
	}
	flags.register(cmd)
	flags.registerPretty(cmd)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		get := func(name string) (view.Value, error) { return k.get(ctx, c, name) }
		return inspectPretty(p, &flags, args, get, prettyValue)
	})
	return cmd
}

func prettyValue(v view.Value) string {
	var b strings.Builder
	fmt.Fprintf(&b, "ID:              %s\nName:            %s\n", v.ID, v.Spec.Name)
	writePrettyLabels(&b, v.Spec.Labels)
	fmt.Fprintf(&b, "Created at:      %s\nUpdated at:      %s\n", prettyTime(v.CreatedAt), prettyTime(v.UpdatedAt))
	if len(v.Versions) > 0 {
		b.WriteString("Versions:\n")
	}
	for _, version := range v.Versions {
		fmt.Fprintf(&b, " %d, of %s\n", version.Number, prettyTime(version.CreatedAt))
		if len(version.Services) > 0 {
			fmt.Fprintf(&b, "  Services:      %s\n", strings.Join(version.Services, ", "))
		}
		if len(version.Nodes) > 0 {
			fmt.Fprintf(&b, "  Nodes:         %s\n", strings.Join(version.Nodes, ", "))
		}
		if len(version.Tasks) > 0 {
			fmt.Fprintf(&b, "  Tasks:         %s\n", strings.Join(version.Tasks, ", "))
		}
	}
	if v.Spec.Data != nil {
		fmt.Fprintf(&b, "Data:\n%s\n", v.Spec.Data)
	}
	return b.String()
}

func (p *program) valueRemove(k valueKind) *cobra.Command {
	upper := strings.ToUpper(k.noun)
	return &cobra.Command{
		Use: "rm " + upper + "[@VERSION] [" + upper + "[@VERSION]...]", Aliases: []string{"remove"}, Short: "Remove one or more " + k.noun + "s, or single versions", Args: minArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return each(args, func(name string) error {
				if err := k.remove(ctx, c, name); err != nil {
					return err
				}
				return p.printf("%s\n", name)
			})
		}),
	}
}
