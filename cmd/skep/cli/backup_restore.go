package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

func (p *program) backupRestore() *cobra.Command {
	var secret secretFlags
	var node nodeFlags
	var autolock bool
	cmd := &cobra.Command{
		Use: "restore [OPTIONS] FILE|-", Short: "Go on with the swarm in a backup, with this node as its only manager", Args: exactArgs(1),
	}
	secret.register(cmd)
	node.register(cmd)
	cmd.Flags().BoolVar(&autolock, "autolock", false, "Lock managers with a new unlock key (a locked swarm stays so with its own)")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		availability, err := parseAvailability(node.availability)
		if err != nil {
			return err
		}
		file, given, err := p.openSealed(ctx, c, args[0], &secret)
		if err != nil {
			return err
		}
		defer file.Close()
		answer, err := restoreBackup(ctx, c, file, &api.RestoreOptions{
			Secret: given, ListenAddress: node.listen.String(), AdvertiseAddress: node.advertise, Availability: availability,
			Autolock: autolock,
		})
		if err != nil {
			return err
		}
		return p.writeRestored(answer)
	})
	return cmd
}

func restoreBackup(ctx context.Context, c *client.Client, file io.Reader, options *api.RestoreOptions) (*api.RestoreBackupResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the upload when reading the file fails
	stream, err := c.Daemon.RestoreBackup(ctx)
	if err != nil {
		return nil, err
	}
	_, err = upload(file, func(data []byte) error {
		err := stream.Send(&api.RestoreBackupRequest{Options: options, Data: data})
		options = nil
		return err
	})
	if err != nil {
		return nil, err
	}
	return stream.CloseAndRecv()
}

func (p *program) writeRestored(answer *api.RestoreBackupResponse) error {
	b := view.NewBackup(answer.GetHeader(), true)
	err := p.printf("Swarm %s restored as of %s (index %d): %s.\nCurrent node (%s) is now its only manager.\n\n",
		b.ClusterID, prettyTime(b.CreatedAt), b.Index, contents(b), answer.GetNodeId())
	if err != nil {
		return err
	}
	if err := p.writeJoinCommand("worker", answer.GetWorkerToken(), answer.GetManagerAddress()); err != nil {
		return err
	}
	err = p.printf("Former managers are listed as workers now: remove those that are gone with 'skep node rm', and make sure that\n" +
		"none of them goes on with the old swarm. Join tokens are those of the backup: 'skep swarm join-token --rotate' replaces one.\n")
	if err != nil || answer.GetUnlockKey() == "" {
		return err
	}
	return p.writeUnlockKey(answer.GetUnlockKey())
}
