package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/internal/fault"
)

// maxKeyLine bounds an unlock key that is read, in bytes: keys have under a hundred.
const maxKeyLine = 4096

func (p *program) swarmUnlock() *cobra.Command {
	return &cobra.Command{
		Use: "unlock", Short: "Unlock swarm", Args: noArgs,
		RunE: p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			info, err := c.Daemon.GetInfo(ctx, &api.GetInfoRequest{})
			if err != nil {
				return err
			}
			switch info.GetState() {
			case api.LocalNodeState_LOCAL_NODE_STATE_LOCKED:
			case api.LocalNodeState_LOCAL_NODE_STATE_INACTIVE:
				return fault.New(fault.Precondition, "This node is not part of a swarm: there is nothing to unlock")
			default:
				return fault.New(fault.Precondition, "swarm is not locked")
			}
			key, err := p.readKeyLine(ctx, "unlock key")
			if err != nil {
				return err
			}
			_, err = c.Daemon.UnlockSwarm(ctx, &api.UnlockSwarmRequest{UnlockKey: key})
			return err
		}),
	}
}

// readKeyLine reads a line from the input stream; on a terminal it asks, and shows nothing of what is typed (I1).
func (p *program) readKeyLine(ctx context.Context, what string) (string, error) {
	var line []byte
	var err error
	if file, ok := p.in.(*os.File); ok && p.opts.IsTerminal(p.in) {
		line, err = p.askKey(ctx, what, int(file.Fd()))
	} else {
		line, err = bufio.NewReader(io.LimitReader(p.input(ctx), maxKeyLine)).ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("read %s: %w", what, err)
	}
	key := bytes.TrimSpace(line)
	if len(key) == 0 {
		return "", fault.New(fault.Invalid, "the %s is empty: type it, or pipe it in as one line", what)
	}
	return string(key), nil
}

// askKey asks on a terminal. Whatever happens, the terminal shows again what is typed afterwards.
func (p *program) askKey(ctx context.Context, what string, terminal int) ([]byte, error) {
	state, err := term.GetState(terminal)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(p.err, "Enter %s: ", what)
	line, err := interruptible(ctx, func() ([]byte, error) { return term.ReadPassword(terminal) })
	fmt.Fprintln(p.err)
	return line, errors.Join(err, term.Restore(terminal, state))
}

func (p *program) swarmUnlockKey() *cobra.Command {
	var quiet, rotate bool
	cmd := &cobra.Command{
		Use: "unlock-key [OPTIONS]", Short: "Manage the unlock key", Args: noArgs,
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display token")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "Rotate unlock key")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		answer, err := c.Control.GetUnlockKey(ctx, &api.GetUnlockKeyRequest{Rotate: rotate})
		if err != nil {
			return err
		}
		if answer.GetUnlockKey() == "" {
			return fault.New(fault.Precondition, "no unlock key is set: 'skep swarm update --autolock=true' sets one")
		}
		if quiet {
			return p.printf("%s\n", answer.GetUnlockKey())
		}
		if rotate {
			if err := p.printf("Successfully rotated manager unlock key.\n"); err != nil {
				return err
			}
		}
		return p.writeUnlockKey(answer.GetUnlockKey())
	})
	return cmd
}
