package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// backupStart is how much of a file the daemon wants to inspect it, in bytes.
	backupStart = 64 << 10
	// maxSecretFile bounds the file of a key or passphrase, in bytes.
	maxSecretFile = 4 << 10
)

// secretFlags name what opens a backup.
type secretFlags struct{ keyFile, passphraseFile string }

func (s *secretFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.keyFile, "key-file", "", `File with the backup key ("-" for STDIN)`)
	cmd.Flags().StringVar(&s.passphraseFile, "passphrase-file", "", `File with the passphrase ("-" for STDIN)`)
	before := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		if err := onlyOne(cmd, "key-file", "passphrase-file"); err != nil || before == nil {
			return err
		}
		return before(cmd, args)
	}
}

// read returns what the flags name; neither is an empty secret. backup is the backup's own file.
func (s *secretFlags) read(ctx context.Context, p *program, backup string) (*api.BackupSecret, error) {
	if backup == "-" && (s.keyFile == "-" || s.passphraseFile == "-") {
		return nil, fault.New(fault.Invalid, "the input stream can't be both the backup and what opens it: name a file for one of them")
	}
	given := new(api.BackupSecret)
	var err error
	switch {
	case s.keyFile != "":
		given.Key, err = p.readSecretFile(ctx, s.keyFile, "backup key")
	case s.passphraseFile != "":
		given.Passphrase, err = p.readSecretFile(ctx, s.passphraseFile, "passphrase")
	}
	return given, err
}

// readSecretFile reads the one line of a file that only its owner may read, or of the input stream for "-".
func (p *program) readSecretFile(ctx context.Context, name, what string) (string, error) {
	in := p.input(ctx)
	if name != "-" {
		file, err := flagvalue.OpenFile(name)
		if err != nil {
			return "", fault.New(fault.KindOf(err), "read the %s: %w", what, err)
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return "", fault.Wrap(fault.Invalid, fmt.Errorf("read the %s: %w", what, err))
		}
		if info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
			return "", fault.New(fault.Invalid, "others may read the %s in %s (%v): if nobody did, run: chmod 600 %s",
				what, name, info.Mode().Perm(), name)
		}
		in = file
	}
	data, err := io.ReadAll(io.LimitReader(in, maxSecretFile+1))
	defer clear(data)
	if err != nil {
		return "", fault.New(fault.KindOf(flagvalue.FileFault(err)), "read the %s: %w", what, err)
	}
	text := strings.TrimRight(string(data), "\r\n")
	switch {
	case text == "":
		return "", fault.New(fault.Invalid, "the %s in %s is empty", what, name)
	case len(data) > maxSecretFile, strings.ContainsAny(text, "\r\n"):
		return "", fault.New(fault.Invalid, "%s must hold the %s as one line and nothing else", name, what)
	}
	return text, nil
}

// backupFile is a backup that is read. Reading it begins at its start, also after inspect.
type backupFile struct {
	*bufio.Reader
	io.Closer
}

// openBackup opens a backup: a file, or the input stream for "-".
func (p *program) openBackup(ctx context.Context, name string) (*backupFile, error) {
	if name == "-" {
		return &backupFile{bufio.NewReaderSize(p.input(ctx), backupStart), io.NopCloser(nil)}, nil
	}
	file, err := flagvalue.OpenFile(name)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "open the backup: %w", err)
	}
	return &backupFile{bufio.NewReaderSize(file, backupStart), file}, nil
}

// inspect asks the daemon about the beginning of the backup.
func (b *backupFile) inspect(ctx context.Context, c *client.Client, given *api.BackupSecret) (*api.InspectBackupResponse, error) {
	start, err := b.Peek(backupStart)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fault.Wrap(fault.Invalid, fmt.Errorf("read the backup: %w", err))
	}
	return c.Daemon.InspectBackup(ctx, &api.InspectBackupRequest{Start: start, Secret: given})
}

// openSealed opens a backup and gets what opens it: what the flags name, nothing where the daemon knows the key, or a key that it
// asks for.
func (p *program) openSealed(ctx context.Context, c *client.Client, name string, flags *secretFlags) (*backupFile, *api.BackupSecret, error) {
	file, err := p.openBackup(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	given, err := flags.read(ctx, p, name)
	if err == nil {
		var answer *api.InspectBackupResponse
		answer, err = file.inspect(ctx, c, given)
		switch {
		case err != nil, answer.GetGenuine():
		case answer.GetHeader().GetPassphrase() != nil:
			err = fault.New(fault.Precondition, "the backup is sealed by a passphrase: give it with --passphrase-file")
		case name == "-":
			err = fault.New(fault.Precondition, "the backup is sealed by the backup key of swarm %s: give it with --key-file",
				answer.GetHeader().GetClusterId())
		default:
			given.Key, err = p.readKeyLine(ctx, "backup key")
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, file.Close())
	}
	return file, given, nil
}
