package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/auditfile"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/internal/fault"
)

func (p *program) auditExport() *cobra.Command {
	var flags auditFlags
	cmd := &cobra.Command{
		Use: "export [OPTIONS]", Short: "Write the audit log, one JSON object a line", Args: noArgs,
		Long: "Write the audit log, one JSON object a line\n\n" +
			"The chain of the entries is checked on the way. Keep an export where no manager can change it,\nand check it with `skep audit verify --file`.",
	}
	flags.registerSince(cmd)
	cmd.Flags().Uint64Var(&flags.after, "after", 0, "Only entries after this one, such as the last of the export before")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		request, err := flags.request(p.opts.Now())
		if err != nil {
			return err
		}
		_, err = p.verified(nil, func(log func(*api.AuditLog) error, entry func(*api.AuditEntry) error) error {
			return readAudit(ctx, c, request, func(l *api.AuditLog) error {
				return errors.Join(auditfile.WriteLog(p.out, l), log(l))
			}, func(e *api.AuditEntry) error {
				return errors.Join(auditfile.WriteEntry(p.out, e), entry(e))
			})
		})
		return err
	})
	return cmd
}

func (p *program) auditVerify() *cobra.Command {
	var file, head string
	var quiet bool
	cmd := &cobra.Command{
		Use: "verify [OPTIONS]", Short: "Check that the audit log is what was written", Args: noArgs,
		Long: "Check that the audit log is what was written\n\n" +
			"Each entry has a hash over itself and the one before it. They are computed again here, from what the\nmanagers send or a file has. " +
			"With --head, the log must also lead through an entry that was noted before:\nwhoever rewrites all of a log can't rewrite your note.",
	}
	cmd.Flags().StringVar(&file, "file", "", "Check an export instead of the managers' log (- for the input stream)")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only print the last entry and its hash, as --head takes them")
	cmd.Flags().StringVar(&head, "head", "", "An entry that must be in the log, as verify printed it (format: ENTRY:HASH)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		expected, err := parseHead(head)
		if err != nil {
			return err
		}
		if file != "" {
			return p.verifyFile(cmd.Context(), file, expected, quiet)
		}
		return p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
			return p.verify(expected, quiet, func(log func(*api.AuditLog) error, entry func(*api.AuditEntry) error) error {
				return readAudit(ctx, c, &api.ReadAuditRequest{}, log, entry)
			})
		})(cmd, args)
	}
	return cmd
}

// parseHead reads ENTRY:HASH; nothing is nil.
func parseHead(text string) (*api.AuditHead, error) {
	if text == "" {
		return nil, nil
	}
	number, hash, _ := strings.Cut(text, ":")
	sequence, err := strconv.ParseUint(number, 10, 64)
	decoded, hashErr := hex.DecodeString(hash)
	if err != nil || hashErr != nil || len(decoded) != chain.HashSize {
		return nil, fault.New(fault.Invalid, "invalid value for --head: %q: write the number of an entry and its hash, as `skep audit verify` prints them", text)
	}
	return &api.AuditHead{Sequence: sequence, Hash: decoded}, nil
}

// source gives a log and its entries to whoever checks them.
type source func(log func(*api.AuditLog) error, entry func(*api.AuditEntry) error) error

func (p *program) verifyFile(ctx context.Context, file string, expected *api.AuditHead, quiet bool) error {
	in := p.input(ctx)
	if file != "-" {
		opened, err := flagvalue.OpenFile(file)
		if err != nil {
			return err
		}
		defer opened.Close()
		in = opened
	}
	return p.verify(expected, quiet, func(log func(*api.AuditLog) error, entry func(*api.AuditEntry) error) error {
		r, err := auditfile.NewReader(in)
		if err == nil {
			err = log(r.Log)
		}
		for err == nil {
			var e *api.AuditEntry
			if e, err = r.Next(); err == nil {
				err = entry(e)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if lineErr := (*auditfile.LineError)(nil); errors.As(err, &lineErr) {
			return fault.Wrap(fault.Invalid, err)
		}
		return err
	})
}

// verify checks a log and says what it found.
func (p *program) verify(expected *api.AuditHead, quiet bool, from source) error {
	log, err := p.verified(expected, from)
	if err != nil {
		return err
	}
	if !quiet {
		err = p.printf("%d entries are what was written, up to\n", log.GetHead().GetSequence()-log.GetAnchor().GetSequence())
	}
	if err == nil {
		err = p.printf("%d:%x\n", log.GetHead().GetSequence(), log.GetHead().GetHash())
	}
	if err != nil || quiet {
		return err
	}
	if first := log.GetAnchor().GetSequence() + 1; first > 1 {
		return p.printf("Entries before %d are not there any more, or were left out: of the log before, only its hash is known.\n", first)
	}
	return nil
}

// verified returns a log whose entries form a chain that leads to its head, through the one expected, if any.
func (p *program) verified(expected *api.AuditHead, from source) (*api.AuditLog, error) {
	var v *chain.Verifier
	var log *api.AuditLog
	err := from(func(l *api.AuditLog) (err error) {
		log = l
		if v, err = chain.NewVerifier(l.GetClusterId(), l.GetAnchor()); err != nil {
			return err
		}
		if expected != nil {
			if err := v.Expect(expected); isBroken(err) {
				return err
			} else if err != nil {
				return fault.Wrap(fault.Precondition, err)
			}
		}
		return v.Expect(l.GetHead())
	}, func(e *api.AuditEntry) error { return v.Add(e) })
	if err != nil {
		return nil, err
	}
	if v == nil {
		return nil, fault.New(fault.Unavailable, "the manager sent no log: try again")
	}
	_, err = v.Finish()
	return log, err
}

// isBroken reports whether an error says that a log is not what was written.
func isBroken(err error) bool { return errors.As(err, new(*chain.BrokenError)) }
