package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

func (p *program) backupCommand() *cobra.Command {
	return group("backup", "Manage backups of the swarm", p.backupCreate(), p.backupInspect(), p.backupVerify(), p.backupRestore(), p.backupKey())
}

// contents says what a backup holds: "1 cluster, 3 nodes".
func contents(b view.Backup) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(b.Objects)) {
		if n := b.Objects[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, nounFor(kind, n)))
		}
	}
	return strings.Join(parts, ", ")
}

// nounFor returns a kind of objects in words, for n of them: "join grant", "audit segments".
func nounFor(kind string, n uint64) string {
	noun := strings.ReplaceAll(kind, "_", " ")
	if n == 1 {
		return noun
	}
	return noun + "s"
}

func (p *program) backupCreate() *cobra.Command {
	var passphraseFile string
	cmd := &cobra.Command{
		Use: "create [OPTIONS] FILE|-", Short: "Write a backup of the swarm to a new file or STDOUT", Args: exactArgs(1),
	}
	cmd.Flags().StringVar(&passphraseFile, "passphrase-file", "", "Seal by the passphrase in this file, not by the swarm's backup key")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		request := new(api.CreateBackupRequest)
		if passphraseFile != "" {
			var err error
			if request.Passphrase, err = p.readSecretFile(ctx, passphraseFile, "passphrase"); err != nil {
				return err
			}
		}
		out, err := p.newFile(args[0], "a backup")
		if err != nil {
			return err
		}
		header, err := receiveBackup(ctx, c, request, out)
		if err = out.finish(err); err != nil {
			return err
		}
		return p.writeCreated(args[0], view.NewBackup(header, true))
	})
	return cmd
}

// receiveBackup writes the backup that the daemon sends, and returns its header.
func receiveBackup(ctx context.Context, c *client.Client, request *api.CreateBackupRequest, to io.Writer) (*api.BackupHeader, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Daemon.CreateBackup(ctx, request)
	if err != nil {
		return nil, err
	}
	var header *api.BackupHeader
	for {
		answer, err := stream.Recv()
		switch {
		case errors.Is(err, io.EOF) && header != nil:
			return header, nil
		case errors.Is(err, io.EOF):
			return nil, fault.New(fault.Unavailable, "the backup ended too early")
		case err != nil:
			return nil, err
		}
		if answer.GetHeader() != nil {
			header = answer.GetHeader()
		}
		if _, err := to.Write(answer.GetData()); err != nil {
			return nil, fault.Wrap(fault.Invalid, fmt.Errorf("write the backup: %w", err))
		}
	}
}

// writeCreated says what was written, and what a restore will need, where it is not in the way of the backup itself.
func (p *program) writeCreated(name string, b view.Backup) error {
	to := p.out
	if name == "-" {
		to, name = p.err, "the output stream"
	}
	needed := "It is sealed by the passphrase: without that, nobody can restore it."
	if b.SealedBy == "backup key" {
		needed = "It is sealed by the swarm's backup key: without that, nobody can restore it.\n" +
			"Keep the key outside of the swarm: run `skep backup key`."
	}
	_, err := fmt.Fprintf(to, "Backup of swarm %s written to %s: index %d, %s.\n%s\n", b.ClusterID, name, b.Index, contents(b), needed)
	return err
}

func (p *program) backupInspect() *cobra.Command {
	var flags valueFlags
	var secret secretFlags
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] FILE|-", Short: "Display what a backup file says of itself", Args: exactArgs(1),
	}
	flags.register(cmd)
	secret.register(cmd)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		file, err := p.openBackup(ctx, args[0])
		if err != nil {
			return err
		}
		defer file.Close()
		given, err := secret.read(ctx, p, args[0])
		if err != nil {
			return err
		}
		answer, err := file.inspect(ctx, c, given)
		if err != nil {
			return err
		}
		b := view.NewBackup(answer.GetHeader(), answer.GetGenuine())
		switch {
		case flags.json:
			return output.Indented(p.out, b)
		case flags.format != "":
			return output.Objects(p.out, flags.format, []view.Backup{b})
		}
		return p.printf("%s", backupPage(b))
	})
	return cmd
}

func backupPage(b view.Backup) string {
	genuine := "yes"
	if !b.Genuine {
		genuine = "not checked, there is no key for it here: give --key-file or --passphrase-file"
	}
	return fmt.Sprintf("Swarm:      %s\nCreated:    %s\nIndex:      %d\nWritten by: skep %s\nSealed by:  %s\nGenuine:    %s\nObjects:    %s\n",
		output.PrintableLines(b.ClusterID), prettyTime(b.CreatedAt), b.Index, output.PrintableLines(b.Version), b.SealedBy, genuine, contents(b))
}

func (p *program) backupVerify() *cobra.Command {
	var secret secretFlags
	cmd := &cobra.Command{
		Use: "verify [OPTIONS] FILE|-", Short: "Restore a backup into a scratch store and check all of it", Args: exactArgs(1),
	}
	secret.register(cmd)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		file, given, err := p.openSealed(ctx, c, args[0], &secret)
		if err != nil {
			return err
		}
		defer file.Close()
		answer, err := verifyBackup(ctx, c, file, given)
		if err != nil {
			return err
		}
		if problems := answer.GetProblems(); len(problems) > 0 {
			for _, problem := range problems {
				fmt.Fprintln(p.err, output.PrintableLines(problem))
			}
			return fault.New(fault.Invalid, "%s is not a sound backup: %d problems", args[0], len(problems))
		}
		b := view.NewBackup(answer.GetHeader(), true)
		err = p.printf("The backup is sound: swarm %s at index %d of %s, %s.\n", b.ClusterID, b.Index, prettyTime(b.CreatedAt), contents(b))
		if err != nil || !answer.GetNoted() {
			return err
		}
		return p.printf("The swarm remembers that: `skep info` shows its last verified backup.\n")
	})
	return cmd
}

func verifyBackup(ctx context.Context, c *client.Client, file io.Reader, given *api.BackupSecret) (*api.VerifyBackupResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the upload when reading the file fails
	stream, err := c.Daemon.VerifyBackup(ctx)
	if err != nil {
		return nil, err
	}
	_, err = upload(file, func(data []byte) error {
		err := stream.Send(&api.VerifyBackupRequest{Secret: given, Data: data})
		given = nil
		return err
	})
	if err != nil {
		return nil, err
	}
	return stream.CloseAndRecv()
}

func (p *program) backupKey() *cobra.Command {
	var quiet, rotate bool
	cmd := &cobra.Command{
		Use: "key [OPTIONS]", Short: "Manage the key that seals backups", Args: noArgs,
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display key")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "Rotate backup key")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		answer, err := c.Control.GetBackupKey(ctx, &api.GetBackupKeyRequest{Rotate: rotate})
		switch {
		case err != nil:
			return err
		case quiet:
			return p.printf("%s\n", answer.GetBackupKey())
		case rotate:
			if err := p.printf("Successfully rotated backup key. Backups that were made before still need the former one.\n\n"); err != nil {
				return err
			}
		}
		return p.printf("To verify or restore a backup of this swarm on another machine, run\n`skep backup verify` or `skep backup restore` and provide the following key:\n\n"+
			"    %s\n\nRemember to store this key in a password manager, outside of this swarm, since\n"+
			"without it its backups are of no use.\n", answer.GetBackupKey())
	})
	return cmd
}
