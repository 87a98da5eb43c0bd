package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/internal/fault"
)

// programEndedError is the end of a program in a container with another exit code than 0, which is the command's own.
type programEndedError struct{ code int }

func (e *programEndedError) Error() string {
	return fmt.Sprintf("the program ended with exit code %d", e.code)
}

// execFlags are those of `exec`.
type execFlags struct {
	detach, interactive, tty bool
	env                      []string
	user, dir                string
}

func (p *program) execCommand() *cobra.Command {
	var flags execFlags
	cmd := &cobra.Command{
		Use: "exec [OPTIONS] TASK COMMAND [ARG...]", Short: "Execute a command in a running task", Args: minArgs(2),
		Long: "Execute a command in a running task\n\nTASK is a task's id, the beginning of one, or SERVICE.SLOT.",
	}
	set := cmd.Flags()
	set.SetInterspersed(false) // what follows the task is the command's
	set.BoolVarP(&flags.detach, "detach", "d", false, "Detached mode: run command in the background")
	set.StringArrayVarP(&flags.env, "env", "e", nil, "Set environment variables")
	set.BoolVarP(&flags.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	set.BoolVarP(&flags.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	set.StringVarP(&flags.user, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
	set.StringVarP(&flags.dir, "workdir", "w", "", "Working directory inside the container")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		start, err := p.execStart(&flags, args[1:])
		if err != nil {
			return err
		}
		first := &api.ConnectTaskRequest{Task: args[0], Input: &api.ConnectTaskRequest_Exec{Exec: start}}
		return p.session(ctx, c, first, flags.interactive && !flags.detach, flags.tty && !flags.detach)
	})
	return cmd
}

func (p *program) execStart(flags *execFlags, args []string) (*api.ExecStart, error) {
	if flags.tty && flags.interactive && !flags.detach && !p.opts.IsTerminal(p.in) {
		return nil, fault.New(fault.Invalid, "the input device is not a TTY: leave out -t, or run the command from a terminal")
	}
	start := &api.ExecStart{
		Args: args, Dir: flags.dir, User: flags.user, Stdin: flags.interactive && !flags.detach, Detach: flags.detach,
	}
	for _, e := range flags.env {
		name, _, set := strings.Cut(e, "=")
		if name == "" {
			return nil, fault.New(fault.Invalid, "invalid environment variable: %q: write NAME=value, or NAME to take the value from here", e)
		}
		if !set {
			value, ok := p.opts.LookupEnv(name)
			if !ok {
				continue // as Docker's: what is not set here is not set there
			}
			e += "=" + value
		}
		start.Env = append(start.Env, e)
	}
	if flags.tty && !flags.detach {
		start.Terminal = terminalSize(p.in, p.out)
		if !slices.ContainsFunc(start.Env, func(e string) bool { return strings.HasPrefix(e, "TERM=") }) {
			start.Env = append(start.Env, "TERM=xterm")
		}
	}
	return start, nil
}

// session connects to a task and passes on input and output, until the end.
func (p *program) session(ctx context.Context, c *client.Client, first *api.ConnectTaskRequest, input, tty bool) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // signals are for the program, not for this one
	defer cancel()
	stream, err := c.Tasks.ConnectTask(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(first); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	connected, err := stream.Recv()
	if err != nil {
		return err
	}
	if last := connected.GetDisconnected(); last != nil {
		return p.ended(last)
	}
	s := &taskSession{send: stream.Send, out: p.out, err: p.err, cancel: cancel}
	restore := func() {}
	if tty && input {
		if restore, err = rawTerminal(p.in); err != nil {
			return err
		}
	}
	defer restore()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	defer signal.Stop(signals)
	go s.relaySignals(ctx, signals, func() *api.TerminalSize { return terminalSize(p.in, p.out) }, tty)
	if input {
		go s.sendInput(p.in) // it ends with its input, or the program
	}
	last, err := s.receive(stream.Recv)
	if err != nil {
		return err
	}
	return p.ended(last)
}

// ended turns the end of a program into that of the command.
func (p *program) ended(last *api.TaskDisconnected) error {
	if text := last.GetError(); text != "" {
		fmt.Fprintln(p.err, "skep:", text)
	}
	if code := int(last.GetExitCode()); code != 0 {
		return &programEndedError{code: code}
	}
	return nil
}
