package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/output"
)

// Docker's texts for --format.
const (
	listFormatHelp = `Format output using a custom template:
'table':            Print output in table format with column headers (default)
'table TEMPLATE':   Print output in table format using the given Go template
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.`
	objectFormatHelp = `Format output using a custom template:
'json':             Print in JSON format
'TEMPLATE':         Print output using the given Go template.`
)

// listFlags are those that every list has.
type listFlags struct {
	quiet, json bool
	format      string
	filter      flagvalue.Filter
}

// register declares the flags, and checks before the command runs that they agree and that filters are known.
func (l *listFlags) register(cmd *cobra.Command, quietHelp, formatHelp string, filters ...string) {
	flags := cmd.Flags()
	flags.BoolVarP(&l.quiet, "quiet", "q", false, quietHelp)
	flags.StringVar(&l.format, "format", "", formatHelp)
	flags.VarP(&l.filter, "filter", "f", "Filter output based on conditions provided")
	flags.BoolVar(&l.json, "json", false, listJSONHelp)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := l.filter.Check(filters...); err != nil {
			return &usageError{command: cmd, err: err}
		}
		return onlyOne(cmd, "json", "format", "quiet")
	}
}

// listJSONHelp is what lists say of --json.
const listJSONHelp = "Print one JSON array of whole objects"

// registerFormat declares the flags of a list that has neither filters nor --quiet.
func (l *listFlags) registerFormat(cmd *cobra.Command, formatHelp, jsonHelp string) {
	cmd.Flags().StringVar(&l.format, "format", "", formatHelp)
	cmd.Flags().BoolVar(&l.json, "json", false, jsonHelp)
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return onlyOne(cmd, "json", "format") }
}

// onlyOne returns a usage error when the first flag was given together with one of the others.
func onlyOne(cmd *cobra.Command, first string, others ...string) error {
	for _, other := range others {
		if cmd.Flags().Changed(first) && cmd.Flags().Changed(other) {
			return &usageError{command: cmd, err: fmt.Errorf("--%s and --%s exclude each other", first, other)}
		}
	}
	return nil
}

// writeList writes objects as --json asks, or else the rows in the list's format.
func writeList[O, R any](w io.Writer, flags *listFlags, defaultTable string, objects []O, header R, rows []R) error {
	if flags.json {
		return output.Array(w, objects)
	}
	list, err := output.ParseList(flags.format, defaultTable, flags.quiet)
	if err != nil {
		return err
	}
	return output.WriteList(w, list, header, rows)
}

// inspectFlags are those that every inspection has.
type inspectFlags struct {
	quiet, json, pretty bool
	format              string
}

func (i *inspectFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVarP(&i.format, "format", "f", "", objectFormatHelp)
	flags.BoolVarP(&i.quiet, "quiet", "q", false, "Only display IDs")
	flags.BoolVar(&i.json, "json", false, "Print one JSON array (default)")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		given := []string{"json", "format", "quiet", "pretty"}
		for len(given) > 1 {
			if err := onlyOne(cmd, given[0], given[1:]...); err != nil {
				return err
			}
			given = given[1:]
		}
		return nil
	}
}

// registerPretty declares --pretty, for objects that have a page for people.
func (i *inspectFlags) registerPretty(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&i.pretty, "pretty", false, "Print the information in a human friendly format")
}

// template returns the format of the objects.
func (i *inspectFlags) template() string {
	if i.quiet {
		return "{{.ID}}"
	}
	return i.format
}

// inspectPretty looks up every name, and writes what there is for people, or in the format asked for.
func inspectPretty[T any](p *program, flags *inspectFlags, names []string, get func(name string) (T, error), pretty func(T) string) error {
	return inspectAll(names, get, func(found []T) error {
		if flags.pretty {
			return p.eachPretty(len(found), func(i int) string { return pretty(found[i]) })
		}
		return output.Objects(p.out, flags.template(), found)
	})
}

// inspectAll looks up every name, writes what there is, and returns the errors of the rest.
func inspectAll[T any](names []string, get func(name string) (T, error), write func([]T) error) error {
	found := []T{}
	missing := each(names, func(name string) error {
		object, err := get(name)
		if err == nil {
			found = append(found, object)
		}
		return err
	})
	if err := write(found); err != nil {
		return err
	}
	return missing
}
