package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/internal/fault"
)

// attachFlags are those of `attach`.
type attachFlags struct {
	noStdin, sigProxy bool
	detachKeys        string
}

// defaultDetachKeys are Docker's.
const defaultDetachKeys = "ctrl-p,ctrl-q"

func (p *program) attachCommand() *cobra.Command {
	flags := attachFlags{}
	cmd := &cobra.Command{
		Use: "attach [OPTIONS] TASK", Short: "Attach local standard input, output, and error streams to a running task", Args: exactArgs(1),
		Long: "Attach local standard input, output, and error streams to a running task\n\n" + taskHelp +
			" Its output is shown from now on: `skep service logs` has what was before.\nInput goes to its terminal, if its service was made with --tty.",
	}
	set := cmd.Flags()
	set.BoolVar(&flags.noStdin, "no-stdin", false, "Do not attach STDIN")
	set.BoolVar(&flags.sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	set.StringVar(&flags.detachKeys, "detach-keys", defaultDetachKeys, "The key sequence for detaching from a task with a terminal")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		keys, err := parseKeys(flags.detachKeys)
		if err != nil {
			return err
		}
		start := &api.AttachStart{Stdin: !flags.noStdin}
		if p.opts.IsTerminal(p.in) {
			start.Terminal = terminalSize(p.in, p.out)
		}
		o := sessionOptions{attach: true, input: !flags.noStdin, ownSignals: !flags.sigProxy, detachKeys: keys}
		first := &api.ConnectTaskRequest{Task: args[0], Input: &api.ConnectTaskRequest_Attach{Attach: start}}
		return p.session(ctx, c, first, o)
	})
	return cmd
}

// parseKeys reads a sequence of keys as Docker writes it: single characters, and ctrl- with a letter or one of @[\]^_.
func parseKeys(text string) ([]byte, error) {
	if text == "" {
		return nil, nil // as Docker's: no keys
	}
	var out []byte
	for part := range strings.SplitSeq(text, ",") {
		name, ctrl := strings.CutPrefix(strings.ToLower(part), "ctrl-")
		switch {
		case ctrl && len(name) == 1 && (name[0] >= 'a' && name[0] <= 'z' || strings.Contains(`@[\]^_`, name)):
			out = append(out, strings.ToUpper(name)[0]&0x1f)
		case !ctrl && len(part) == 1 && part[0] < 0x80:
			out = append(out, part[0])
		default:
			return nil, fault.New(fault.Invalid, "invalid key %.20q in --detach-keys: write a character or ctrl-LETTER, with commas between: %s", part, defaultDetachKeys)
		}
	}
	return out, nil
}

// errDetached is returned when the keys to leave were typed.
var errDetached = errors.New("read escape sequence")

// keyReader gives what is typed, until a sequence of keys was. Keys that may begin it are held back.
type keyReader struct {
	from io.Reader
	keys []byte // not empty

	held  int    // of keys, that were typed last
	ready []byte // to be given
	err   error  // to be given after that
}

// Read implements io.Reader.
func (r *keyReader) Read(p []byte) (int, error) {
	for len(r.ready) == 0 && r.err == nil {
		n, err := r.from.Read(p)
		r.take(p[:n])
		if r.err == nil && err != nil {
			r.ready = append(r.ready, r.keys[:r.held]...)
			r.err = err
		}
	}
	if len(r.ready) == 0 {
		return 0, r.err
	}
	n := copy(p, r.ready)
	r.ready = r.ready[n:]
	return n, nil
}

// take looks for the keys in what was typed.
func (r *keyReader) take(typed []byte) {
	all := append(bytes.Clone(r.keys[:r.held]), typed...)
	if at := bytes.Index(all, r.keys); at >= 0 {
		r.ready, r.err = append(r.ready, all[:at]...), errDetached
		return
	}
	r.held = 0
	for n := min(len(r.keys)-1, len(all)); n > 0; n-- {
		if bytes.HasSuffix(all, r.keys[:n]) {
			r.held = n
			break
		}
	}
	r.ready = append(r.ready, all[:len(all)-r.held]...)
}
