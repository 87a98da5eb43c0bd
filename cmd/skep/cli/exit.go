package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/internal/fault"
)

// Exit codes that no kind of fault stands for.
const (
	exitOK          = 0
	exitUsage       = 2
	exitChanges     = 8
	exitEnded       = 11
	exitBroken      = 12
	exitStopped     = 13
	exitTimeout     = 14
	exitInterrupted = 130
)

// exitCode is one row of the table in the help and in docs/cli.md.
type exitCode struct {
	code    int
	meaning string
	kinds   []fault.Kind
}

// exitCodes is the table of exit codes (I3).
func exitCodes() []exitCode {
	return []exitCode{
		{exitOK, "done", nil},
		{1, "something broke that is not the caller's fault; the daemon's log says more", []fault.Kind{fault.Internal}},
		{exitUsage, "the command line is wrong: unknown flag or command, wrong arguments", nil},
		{3, "what was named is not there", []fault.Kind{fault.NotFound}},
		{4, "the name or node exists already", []fault.Kind{fault.AlreadyExists}},
		{5, "a value can't be right, whatever the state", []fault.Kind{fault.Invalid}},
		{6, "the present state forbids it, such as a secret in use or a node without a swarm", []fault.Kind{fault.Precondition}},
		{7, "it was changed by somebody else at the same time; run the command again", []fault.Kind{fault.Conflict}},
		{exitChanges, "this user or node may not do it; of a plan that was printed: something would change", []fault.Kind{fault.PermissionDenied, fault.Unauthenticated}},
		{9, "the daemon or the managers can't be reached; try again", []fault.Kind{fault.Unavailable, fault.NotLeader}},
		{10, "a limit was reached", []fault.Kind{fault.Exhausted}},
		{exitEnded, "the service did not converge: its tasks failed and are not restarted", nil},
		{exitBroken, "the audit log is not what was written", nil},
		{exitStopped, "the update failed: it was paused, or rolled back", nil},
		{exitTimeout, "what was waited for takes longer than --timeout", nil},
		{exitInterrupted, "interrupted; what was asked for goes on in the background", nil},
	}
}

// codeOf returns the exit code of an error: that of its first part when there are several.
func codeOf(err error) int {
	if isUsage(err) {
		return exitUsage
	}
	var several failures
	if errors.As(err, &several) {
		return codeOf(several[0])
	}
	if errors.Is(err, errChanges) {
		return exitChanges
	}
	if errors.Is(err, progress.ErrEnded) {
		return exitEnded
	}
	if errors.Is(err, progress.ErrStopped) {
		return exitStopped
	}
	if isBroken(err) {
		return exitBroken
	}
	if errors.Is(err, errTimeout) {
		return exitTimeout
	}
	kind := fault.KindOf(err)
	for _, row := range exitCodes() {
		for _, k := range row.kinds {
			if k == kind {
				return row.code
			}
		}
	}
	return 1
}

// usageError is a command line that can't be understood.
type usageError struct {
	command *cobra.Command
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func isUsage(err error) bool {
	var usage *usageError
	return errors.As(err, &usage)
}

// flagError says what to type where a number or a duration is wanted: the parser's own words are a programmer's; and instead of a flag
// that there is not.
func flagError(cmd *cobra.Command, err error) error {
	if hint := flagHint(cmd, err); hint != "" {
		return fmt.Errorf("%w%s", err, hint)
	}
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	var must string
	switch invalid.GetFlag().Value.Type() {
	case "uint64", "uint":
		must = "a whole number, 0 or more"
	case "int64", "int":
		must = "a whole number"
	case "float32", "float64":
		must = "a number, such as 0.25"
	case "duration":
		must = "a duration, such as 10s or 1h30m"
	default:
		return err
	}
	return fmt.Errorf(`invalid argument %q for "--%s": must be %s`, invalid.GetValue(), invalid.GetFlag().Name, must)
}

// failures are the errors of a command that went on after the first; never empty.
type failures []error

func (f failures) Error() string {
	texts := make([]string, len(f))
	for i, err := range f {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "\n")
}

// Unwrap returns the errors.
func (f failures) Unwrap() []error { return f }

func (f failures) orNil() error {
	switch len(f) {
	case 0:
		return nil
	case 1:
		return f[0]
	}
	return f
}

// report writes an error for a person: what, why, and the next step. It returns the exit code.
func report(w io.Writer, command *cobra.Command, err error) int {
	if errors.Is(err, errChanges) {
		return exitChanges
	}
	var usage *usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(w, "skep: %s\n\n%s\nRun '%s --help' for more information\n",
			usage.err, usageLine(usage.command), usage.command.CommandPath())
		return exitUsage
	}
	all := failures{err}
	_ = errors.As(err, &all)
	for _, one := range all {
		reportOne(w, command, one)
	}
	if hint := hintFor(command, all[0]); hint != "" {
		fmt.Fprintln(w, hint)
	}
	return codeOf(err)
}

func reportOne(w io.Writer, command *cobra.Command, err error) {
	if errors.Is(err, client.ErrUnreachable) {
		fmt.Fprintf(w, "skep: %s\n", err)
		return
	}
	what := strings.TrimPrefix(command.CommandPath(), command.Root().Name()+" ")
	fmt.Fprintf(w, "skep: %s: %s\n", what, output.PrintableLines(err.Error()))
}

// hintFor returns the next step where the error's own text can't know it.
func hintFor(command *cobra.Command, err error) string {
	if errors.Is(err, progress.ErrStopped) {
		return "Run 'skep service ps' to see why; then 'skep service update' to change it, with --resume to go on, or 'skep service rollback' to go back."
	}
	if errors.Is(err, progress.ErrEnded) {
		return "Run 'skep service ps' and 'skep service logs' to see why, and 'skep service update' to try again."
	}
	if strings.Contains(err.Error(), "'skep ") || strings.Contains(err.Error(), "`skep ") {
		return "" // it names the next step already
	}
	switch fault.KindOf(err) {
	case fault.NotFound:
		parent := command.Parent()
		what, _, _ := strings.Cut(err.Error(), " ") // `volume create --node` may lack a node
		if group := findCommand(command.Root(), what); group != nil {
			parent = group
		}
		// A file that is missing is in no list of the daemon's.
		if parent == nil || errors.Is(err, fs.ErrNotExist) || findCommand(parent, "ls") == nil {
			return ""
		}
		return fmt.Sprintf("Run '%s ls' to see what there is.", parent.CommandPath())
	case fault.Conflict:
		return "Somebody else changed it at the same time. Run the command again."
	case fault.Unavailable, fault.NotLeader:
		switch {
		case errors.Is(err, errGap):
			return "Run 'skep node ls' to see how the nodes are."
		case errors.Is(err, errNotRead):
			return ""
		}
		return "Try again in a few seconds; 'skep info' says how this node is."
	default:
		return ""
	}
}

func findCommand(parent *cobra.Command, name string) *cobra.Command {
	for _, command := range parent.Commands() {
		if command.Name() == name {
			return command
		}
	}
	return nil
}

// reportInterrupted says what goes on, where the command knows, and returns the exit code.
func reportInterrupted(w io.Writer, err error) int {
	var waiting *interruptedError
	switch {
	case errors.As(err, &waiting):
		fmt.Fprintln(w, waiting)
	case !errors.Is(err, progress.ErrInterrupted):
		fmt.Fprintln(w, "skep: interrupted")
	}
	return exitInterrupted
}

// interruptedError is a wait that was given up for something that goes on.
type interruptedError struct {
	// check is the command that shows how far it is.
	check string
	// left says what does not go on, where that is so, or is empty.
	left string
}

func (e *interruptedError) Error() string {
	if e.left != "" {
		return e.left
	}
	return fmt.Sprintf("Operation continuing in background.\nUse `%s` to check progress.", e.check)
}

func (e *interruptedError) Unwrap() error { return progress.ErrInterrupted }
