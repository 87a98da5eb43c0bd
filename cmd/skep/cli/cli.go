package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
)

// Options are what the command line takes from its program, beside the streams. The zero value is for production.
type Options struct {
	// Version is the program's version.
	Version string
	// Commands are further commands of the root, such as daemon.
	Commands []*cobra.Command
	// LookupEnv is the environment; nil is the process's own.
	LookupEnv flagvalue.LookupEnv
	// Environ lists the environment, NAME=VALUE; nil is the process's own.
	Environ func() []string
	// Now is the time that ages are reckoned from; nil is the clock.
	Now func() time.Time
	// Monitor is how long a service must be whole to count as converged; 0 is progress.DefaultMonitor.
	Monitor time.Duration
	// RetryPause is the pause before an unavailable call is repeated; 0 is client.RetryPause.
	RetryPause time.Duration
	// ApprovalPause is the time between two questions whether a person has let this machine in; 0 is 2s.
	ApprovalPause time.Duration
	// IsTerminal says whether a stream is a person's terminal; nil asks the kernel.
	IsTerminal func(stream any) bool
}

// program is one run of the command line.
type program struct {
	in       io.Reader
	out, err io.Writer
	opts     Options
	// which daemon to speak to, as the flags say.
	which whichFlags
}

// Main runs the command line args, without the program's name, and returns the exit code. It ends early when ctx ends.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, opts Options) int {
	root := New(stdin, stdout, stderr, opts)
	root.SetArgs(append([]string{}, args...)) // nil would be the program's own
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if command == root && !isUsage(err) { // what it does can't fail: a flag before the name of a command is wrong
		err = &usageError{command: root, err: flagError(root, err)}
	}
	var ended *programEndedError
	if errors.As(err, &ended) {
		return ended.code
	}
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, progress.ErrInterrupted)) {
		return reportInterrupted(stderr, err)
	}
	return report(stderr, command, err)
}

// New returns the root command with all others. Its errors are for [Main] to report.
func New(stdin io.Reader, stdout, stderr io.Writer, opts Options) *cobra.Command {
	p := &program{in: stdin, out: stdout, err: stderr, opts: opts.withDefaults()}
	root := &cobra.Command{
		Use:           "skep [OPTIONS] COMMAND [ARG...]",
		Short:         "A secure-by-default cluster orchestrator",
		Version:       p.opts.Version,
		SilenceErrors: true, SilenceUsage: true,
		TraverseChildren: true, // --host before a command's name is the daemon's; `service create` has its own
		Args:             cobra.ArbitraryArgs,
		RunE:             runGroup,
	}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetVersionTemplate("skep version {{.Version}}\n")
	root.SetHelpFunc(p.help)
	root.SetUsageFunc(func(cmd *cobra.Command) error { _, err := io.WriteString(stdout, usageLine(cmd)); return err })
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{command: cmd, err: flagError(cmd, err)} })
	p.which.register(root.PersistentFlags())
	root.PersistentFlags().BoolP("help", "h", false, "Print usage")
	root.Flags().BoolP("version", "v", false, "Print version information and quit")
	root.AddCommand(p.swarmCommand(), p.nodeCommand(), p.serviceCommand(), p.stackCommand(), p.secretCommand(), p.configCommand(), p.grantCommand(), p.imageCommand(),
		p.backupCommand(), p.auditCommand(), p.userCommand(), p.contextCommand(), p.doctorCommand(), p.infoCommand(), p.statsCommand(), p.versionCommand())
	root.AddCommand(p.attachCommand(), p.execCommand(), p.copyCommand(), p.pauseCommand(), p.unpauseCommand(), p.killCommand(), p.topCommand(),
		p.completed(serviceWords, p.waitCommand()))
	root.AddCommand(p.eventsCommand(), p.volumeCommand())
	root.AddCommand(opts.Commands...)
	for _, group := range root.Commands() {
		group.InheritedFlags() // cobra looks for flags before a name among those that it has put together so far
	}
	return root
}

func (o Options) withDefaults() Options {
	if o.Version == "" {
		o.Version = "unknown"
	}
	if o.LookupEnv == nil {
		o.LookupEnv = os.LookupEnv
	}
	if o.Environ == nil {
		o.Environ = os.Environ
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Monitor == 0 {
		o.Monitor = progress.DefaultMonitor
	}
	if o.ApprovalPause == 0 {
		o.ApprovalPause = approvalPause
	}
	if o.IsTerminal == nil {
		o.IsTerminal = isTerminal
	}
	return o
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// connected returns the run function of a command that needs the daemon.
func (p *program) connected(run func(ctx context.Context, c *client.Client, args []string) error,
) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		to, err := p.endpoint(cmd)
		if err != nil {
			return err
		}
		c, err := client.Dial(to, p.opts.RetryPause)
		if err != nil {
			return err
		}
		defer c.Close()
		return run(cmd.Context(), c, args)
	}
}

// printf writes to the output stream.
func (p *program) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(p.out, format, args...)
	return err
}

// each runs do for every argument, though some fail, and returns all errors.
func each(args []string, do func(arg string) error) error { return eachOf(args, do) }

// eachOf is each for anything.
func eachOf[T any](args []T, do func(arg T) error) error {
	var failed failures
	for _, arg := range args {
		if err := do(arg); err != nil {
			failed = append(failed, err)
		}
	}
	return failed.orNil()
}
