package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
)

// helpWidth is the width of a help page where the output is no terminal.
const helpWidth = 80

// usageLine returns Docker's line of usage.
func usageLine(cmd *cobra.Command) string {
	line := strings.TrimSuffix(cmd.UseLine(), " [flags]") // cobra's word for [OPTIONS], which Use has already
	if cmd.HasParent() && cmd.HasSubCommands() && len(cmd.ValidArgs) == 0 {
		line += " COMMAND"
	}
	return "Usage:  " + line + "\n"
}

// help writes Docker's page of help.
func (p *program) help(cmd *cobra.Command, _ []string) {
	var b strings.Builder
	b.WriteString(usageLine(cmd))
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(text))
	p.writeAliases(&b, cmd)
	writeCommands(&b, cmd)
	if flags := ownFlags(cmd); flags.HasAvailableFlags() {
		title := "Options"
		if !cmd.HasParent() {
			title = "Global Options"
		}
		fmt.Fprintf(&b, "\n%s:\n%s", title, flags.FlagUsagesWrapped(p.width()))
	}
	if !cmd.HasParent() {
		writeExitCodes(&b)
	}
	if cmd.HasSubCommands() {
		fmt.Fprintf(&b, "\nRun '%s COMMAND --help' for more information on a command.\n", cmd.CommandPath())
	}
	_, _ = fmt.Fprint(p.out, b.String()) // help that can't be written has no other place to go
}

func (p *program) width() int {
	if file, ok := p.out.(*os.File); ok && p.opts.IsTerminal(p.out) {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
			return width
		}
	}
	return helpWidth
}

func (p *program) writeAliases(b *strings.Builder, cmd *cobra.Command) {
	if len(cmd.Aliases) == 0 {
		return
	}
	names := []string{cmd.CommandPath()}
	for _, alias := range cmd.Aliases {
		names = append(names, cmd.Parent().CommandPath()+" "+alias)
	}
	fmt.Fprintf(b, "\nAliases:\n  %s\n", strings.Join(names, ", "))
}

func writeCommands(b *strings.Builder, cmd *cobra.Command) {
	if !cmd.HasAvailableSubCommands() {
		return
	}
	b.WriteString("\nCommands:\n")
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			fmt.Fprintf(b, "  %-*s %s\n", max(cmd.NamePadding(), len("join-token"))+1, sub.Name(), sub.Short)
		}
	}
}

func writeExitCodes(b *strings.Builder) {
	b.WriteString("\nExit codes:\n")
	for _, row := range exitCodes() {
		fmt.Fprintf(b, "  %3d  %s\n", row.code, row.meaning)
	}
}

// ownFlags returns the flags that a command's page lists: its own, and not those of the root.
func ownFlags(cmd *cobra.Command) *pflag.FlagSet {
	own := pflag.NewFlagSet(cmd.Name(), pflag.ContinueOnError)
	own.SortFlags = true
	cmd.LocalFlags().VisitAll(func(flag *pflag.Flag) {
		if flag.Name != "help" || !cmd.HasParent() {
			own.AddFlag(flag)
		}
	})
	return own
}

// runGroup is what a command does that only has others below it: it shows them.
func runGroup(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	return unknownCommand(cmd, args[0])
}

// group returns a command that only has others below it.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: name, Short: short, Args: cobra.ArbitraryArgs, RunE: runGroup,
	}
	cmd.AddCommand(commands...)
	return cmd
}

// errArguments is what a wrong number of arguments is, in Docker's words.
func errArguments(cmd *cobra.Command, format string, args ...any) error {
	return &usageError{command: cmd, err: errors.New("'" + cmd.CommandPath() + "' " + fmt.Sprintf(format, args...))}
}

func arguments(n int) string {
	if n == 1 {
		return "1 argument"
	}
	return fmt.Sprintf("%d arguments", n)
}

// noArgs accepts no argument.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return errArguments(cmd, "accepts no arguments")
	}
	return nil
}

// minArgs accepts n arguments and more.
func minArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < n {
			return errArguments(cmd, "requires at least %s", arguments(n))
		}
		return nil
	}
}

// exactArgs accepts n arguments.
func exactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return errArguments(cmd, "requires %s", arguments(n))
		}
		return nil
	}
}

// rangeArgs accepts from least to most arguments.
func rangeArgs(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if least == 0 && len(args) > most {
			return errArguments(cmd, "accepts at most %s", arguments(most))
		}
		if len(args) < least || len(args) > most {
			return errArguments(cmd, "requires at least %d and at most %s", least, arguments(most))
		}
		return nil
	}
}
