package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
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
	env, envFiles            []string
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
	set.StringArrayVar(&flags.envFiles, "env-file", nil, "Read in a file of environment variables")
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
		return p.session(ctx, c, first, sessionOptions{input: flags.interactive && !flags.detach, tty: flags.tty && !flags.detach})
	})
	return cmd
}

func (p *program) execStart(flags *execFlags, args []string) (*api.ExecStart, error) {
	if flags.tty && flags.interactive && !flags.detach && !p.opts.IsTerminal(p.in) {
		return nil, fault.New(fault.Invalid, "the input device is not a TTY: leave out -t, or run the command from a terminal")
	}
	env, err := flagvalue.ReadEnv(flags.envFiles, flags.env, p.opts.LookupEnv)
	if err != nil {
		return nil, err
	}
	if flags.dir != "" && !path.IsAbs(flags.dir) {
		return nil, fault.New(fault.Invalid, "the working directory %q is invalid, it needs to be an absolute path", flags.dir)
	}
	start := &api.ExecStart{
		Args: args, Env: env, Dir: flags.dir, User: flags.user, Stdin: flags.interactive && !flags.detach, Detach: flags.detach,
	}
	if flags.tty && !flags.detach {
		start.Terminal = terminalSize(p.in, p.out)
		if !slices.ContainsFunc(start.Env, func(e string) bool { return strings.HasPrefix(e, "TERM=") }) {
			start.Env = append(start.Env, "TERM=xterm")
		}
	}
	return start, nil
}

// sessionOptions say what a session does with this side's input and signals.
type sessionOptions struct {
	input bool // pass input on
	tty   bool // there is a terminal at the other end
	// attach takes the other end as it is: with a terminal, which the task says, or without one, and then without input.
	attach bool
	// ownSignals has signals end the command, and not go to the process.
	ownSignals bool
	// detachKeys, if typed into a terminal, end the command and not the process; empty for none.
	detachKeys []byte
}

// session connects to a task and passes on input and output, until the end.
func (p *program) session(ctx context.Context, c *client.Client, first *api.ConnectTaskRequest, o sessionOptions) error {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // signals are for the program, not for this one
	defer cancel()
	stream, err := c.Tasks.ConnectTask(ctx)
	if err != nil {
		return err
	}
	if err := stream.Send(first); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	answer, err := stream.Recv()
	if err != nil {
		return err
	}
	if last := answer.GetDisconnected(); last != nil {
		return p.ended(last)
	}
	if o.attach {
		if o.tty, o.input, err = p.attachable(answer.GetConnected(), o.input); err != nil {
			return err
		}
	}
	s := &taskSession{send: stream.Send, out: p.out, err: p.err, cancel: cancel}
	restore := func() {}
	if o.tty && o.input {
		if restore, err = rawTerminal(p.in); err != nil {
			return err
		}
	}
	defer restore()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	defer signal.Stop(signals)
	s.ownSignals = o.ownSignals
	go s.relaySignals(ctx, signals, func() *api.TerminalSize { return terminalSize(p.in, p.out) }, o.tty)
	if o.input {
		from := p.in
		if o.tty && len(o.detachKeys) > 0 {
			from = &keyReader{from: from, keys: o.detachKeys}
		}
		go s.sendInput(from) // it ends with its input, or the program
	}
	last, err := s.receive(stream.Recv)
	if err != nil && s.detached.Load() {
		fmt.Fprint(p.err, errDetached, "\r\n")
		return nil
	}
	if err != nil {
		return err
	}
	return p.ended(last)
}

// attachable says whether a task has a terminal, and whether input goes there.
func (p *program) attachable(task *api.TaskConnected, input bool) (tty, passed bool, err error) {
	if !task.GetTerminal() {
		return false, false, nil
	}
	if input && !p.opts.IsTerminal(p.in) {
		return false, false, fault.New(fault.Invalid, "the task has a terminal, and the input device is not a TTY: add --no-stdin, or run the command from a terminal")
	}
	return true, input, nil
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
