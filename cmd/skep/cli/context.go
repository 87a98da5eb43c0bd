package cli

import (
	"encoding/csv"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/contexts"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/internal/fault"
)

// maxArchive bounds an exported context in bytes.
const maxArchive = 512 << 10

func (p *program) contextCommand() *cobra.Command {
	return group("context", "Manage contexts", p.contextCreate(), p.contextList(), p.contextUse(), p.contextShow(), p.contextInspect(),
		p.contextRemove(), p.contextExport(), p.contextImport())
}

func (p *program) contextCreate() *cobra.Command {
	var description, endpoint string
	cmd := &cobra.Command{
		Use: "create [OPTIONS] CONTEXT", Short: "Create a context", Args: exactArgs(1),
		Long: "Create a context.\n\n" +
			"--skep takes host=unix:///PATH, or host=tcp://HOST[:PORT],ca=FILE,cert=FILE,key=FILE. The files are copied.",
	}
	cmd.Flags().StringVar(&description, "description", "", "Description of the context")
	cmd.Flags().StringVar(&endpoint, "skep", "", "Set the skep endpoint")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		to, err := p.parseEndpoint(endpoint)
		if err != nil {
			return err
		}
		if err := p.contexts().Create(contexts.Context{Name: args[0], Description: description, Endpoint: to}); err != nil {
			return err
		}
		return p.contextCreated(args[0], "created")
	}
	return cmd
}

// contextCreated says what became of a context, as Docker does.
func (p *program) contextCreated(name, verb string) error {
	fmt.Fprintf(p.err, "Successfully %s context %q\n", verb, name)
	return p.printf("%s\n", name)
}

// parseEndpoint reads the value of --skep and the files that it names.
func (p *program) parseEndpoint(text string) (client.Endpoint, error) {
	fields, err := csv.NewReader(strings.NewReader(text)).Read()
	if err != nil {
		return client.Endpoint{}, fault.New(fault.Invalid, "--skep %q: want host=tcp://HOST[:PORT],ca=FILE,cert=FILE,key=FILE", text)
	}
	values := map[string]string{}
	for _, field := range fields {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "host", "ca", "cert", "key":
			values[key] = value
		default:
			return client.Endpoint{}, fault.New(fault.Invalid, "--skep: unknown key %q: there are host, ca, cert and key", key)
		}
	}
	to := client.Endpoint{Host: values["host"]}
	if client.IsRemote(to.Host) {
		to.TLS, err = p.readTLS(values["ca"], values["cert"], values["key"])
	}
	return to, err
}

// contextView is a context without its key.
type contextView struct {
	Name        string
	Description string
	Host        string
	// Current says that it is the one in use.
	Current bool
	// TLS says that it has a certificate, which ends at ExpiresAt.
	TLS       bool
	ExpiresAt *time.Time `json:",omitempty"`
	// Error is why it can't be used, or empty.
	Error string `json:",omitempty"`
}

// viewContext shows a context; what is wrong with it is a part of that.
func (p *program) viewContext(name, current string) (contextView, error) {
	c, err := p.contexts().Get(name)
	v := contextView{Name: name, Description: c.Description, Host: c.Host, Current: name == current, TLS: !c.TLS.IsZero()}
	if client.IsRemote(c.Host) && err == nil {
		if end := c.TLS.Expires(); !end.IsZero() {
			v.ExpiresAt = &end
		}
		if bad := c.TLS.Check(); bad != nil {
			v.Error = bad.Error()
		}
	}
	return v, err
}

// contextRow is a line of `context ls`.
type contextRow struct{ Name, Description, SkepEndpoint, Error string }

const contextTable = "{{.Name}}\t{{.Description}}\t{{.SkepEndpoint}}\t{{.Error}}"

func (p *program) contextList() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List contexts", Args: noArgs,
	}
	flags.register(cmd, "Only show context names", listFormatHelp, "name")
	cmd.RunE = func(*cobra.Command, []string) error {
		current, err := p.contextName()
		if err != nil {
			return err
		}
		names, err := p.contexts().List()
		if err != nil {
			return err
		}
		var objects []contextView
		var rows []contextRow
		for _, name := range names {
			if !flags.filter.Prefix("name", name) {
				continue
			}
			v, err := p.viewContext(name, current)
			if err != nil {
				v.Error = err.Error()
			}
			objects, rows = append(objects, v), append(rows, rowOf(v, flags.quiet))
		}
		header := contextRow{Name: "NAME", Description: "DESCRIPTION", SkepEndpoint: "SKEP ENDPOINT", Error: "ERROR"}
		if flags.quiet {
			flags.quiet, flags.format = false, "{{.Name}}" // a context has no id
		}
		return writeList(p.out, &flags, contextTable, objects, header, rows)
	}
	return cmd
}

// rowOf marks the context in use with a star, as Docker does, where a person reads it.
func rowOf(v contextView, quiet bool) contextRow {
	row := contextRow{Name: v.Name, Description: v.Description, SkepEndpoint: v.Host, Error: v.Error}
	if v.Current && !quiet {
		row.Name += " *"
	}
	return row
}

func (p *program) contextUse() *cobra.Command {
	return &cobra.Command{
		Use: "use CONTEXT", Short: "Set the current context", Args: exactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := p.contexts().Use(args[0]); err != nil {
				return err
			}
			fmt.Fprintf(p.err, "Current context is now %q\n", args[0])
			if p.env(hostVariable) != "" && args[0] != contexts.Default {
				fmt.Fprintf(p.err, "Warning: %s environment variable overrides the active context. To use %q, either set the global --context flag, or unset %s environment variable.\n",
					hostVariable, args[0], hostVariable)
			}
			return p.printf("%s\n", args[0])
		},
	}
}

func (p *program) contextShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Print the name of the current context", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			name, err := p.contextName()
			if err != nil {
				return err
			}
			return p.printf("%s\n", name)
		},
	}
}

func (p *program) contextInspect() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] [CONTEXT] [CONTEXT...]", Short: "Display detailed information on one or more contexts",
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", objectFormatHelp)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		current, err := p.contextName()
		if err != nil {
			return err
		}
		if len(args) == 0 {
			args = []string{current}
		}
		get := func(name string) (contextView, error) { return p.viewContext(name, current) }
		return inspectAll(args, get, func(found []contextView) error { return output.Objects(p.out, format, found) })
	}
	return cmd
}

func (p *program) contextRemove() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] CONTEXT [CONTEXT...]", Aliases: []string{"remove"}, Short: "Remove one or more contexts", Args: minArgs(1),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the removal of a context in use")
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		return each(args, func(name string) error {
			if err := p.contexts().Remove(name, force); err != nil {
				return err
			}
			return p.printf("%s\n", name)
		})
	}
	return cmd
}

func (p *program) contextExport() *cobra.Command {
	return &cobra.Command{
		Use: "export CONTEXT [FILE|-]", Short: "Export a context, with its key, to a tar archive FILE or a tar stream on STDOUT", Args: rangeArgs(1, 2),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := p.contexts().Get(args[0])
			if err != nil {
				return err
			}
			file := args[0] + contextSuffix
			if len(args) > 1 {
				file = args[1]
			}
			out, err := p.newFile(file, "an exported context")
			if err != nil {
				return err
			}
			if err := out.finish(contexts.Export(out, c)); err != nil || file == "-" {
				return err
			}
			return p.printf("Written file %q\n", file)
		},
	}
}

func (p *program) contextImport() *cobra.Command {
	return &cobra.Command{
		Use: "import CONTEXT FILE|-", Short: "Import a context from a tar file", Args: exactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := p.input(cmd.Context())
			if args[1] != "-" {
				file, err := flagvalue.OpenFile(args[1])
				if err != nil {
					return err
				}
				defer file.Close()
				in = file
			}
			c, err := contexts.Import(io.LimitReader(in, maxArchive))
			if err != nil {
				return err
			}
			c.Name = args[0]
			if err := p.contexts().Create(c); err != nil {
				return err
			}
			return p.contextCreated(c.Name, "imported")
		},
	}
}
