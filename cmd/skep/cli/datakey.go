package cli

import (
	"cmp"
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

// The managers are asked maxKeyPolls times, keyPollPause apart, whether they have changed their data keys: a minute. Each writes its
// whole store anew, which takes seconds for the largest.
const (
	maxKeyPolls  = 300
	keyPollPause = 200 * time.Millisecond
)

// dataKeyRow is a line of `swarm data-key`.
type dataKeyRow struct{ ID, Hostname, ManagerStatus, Changed, Generation string }

const dataKeyTable = "{{.ID}}\t{{.Hostname}}\t{{.ManagerStatus}}\t{{.Changed}}"

func (p *program) swarmDataKey() *cobra.Command {
	var flags listFlags
	var rotate, detach bool
	cmd := &cobra.Command{
		Use: "data-key [OPTIONS]", Short: "Show the age of the managers' data keys, or change the keys", Args: noArgs,
		Long: "Show the age of the managers' data keys, or change the keys.\n\n" +
			"A data key seals what a manager keeps of the swarm on its disk. Each manager has its own, makes it itself, and changes it at the\n" +
			"age that `skep swarm update --data-key-rotation` sets. A manager that is down when --rotate is used follows once it is back.",
	}
	flags.register(cmd, "Only display IDs", listFormatHelp, "id", "name")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "Change the data key of every manager")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "With --rotate: exit immediately instead of waiting for the managers")
	check := cmd.PreRunE
	cmd.PreRunE = func(cmd *cobra.Command, args []string) error {
		return cmp.Or(check(cmd, args), onlyOne(cmd, "rotate", "json", "format", "quiet", "filter"))
	}
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		if rotate {
			return p.rotateDataKeys(ctx, c, detach)
		}
		return p.listDataKeys(ctx, c, &flags)
	})
	return cmd
}

func (p *program) listDataKeys(ctx context.Context, c *client.Client, flags *listFlags) error {
	managers, err := listManagers(ctx, c)
	if err != nil {
		return err
	}
	var objects []view.DataKey
	var rows []dataKeyRow
	for _, node := range managers {
		v := view.NewNode(node)
		if !nodePasses(flags.filter, v) {
			continue
		}
		key := view.NewDataKey(node)
		objects = append(objects, key)
		row := dataKeyRow{
			ID: key.ID, Hostname: key.Hostname, ManagerStatus: newNodeRow(v, "").ManagerStatus, Changed: "unknown",
			Generation: strconv.FormatUint(key.Generation, 10),
		}
		if key.ChangedAt != nil {
			row.Changed = p.age(*key.ChangedAt)
		}
		rows = append(rows, row)
	}
	header := dataKeyRow{ID: "ID", Hostname: "HOSTNAME", ManagerStatus: "MANAGER STATUS", Changed: "CHANGED", Generation: "GENERATION"}
	return writeList(p.out, flags, dataKeyTable, objects, header, rows)
}

// listManagers returns the nodes that are members of the Raft group, in the order of their names.
func listManagers(ctx context.Context, c *client.Client) ([]*api.Node, error) {
	answer, err := c.Control.ListNodes(ctx, &api.ListNodesRequest{})
	var managers []*api.Node
	for _, node := range sortedBy(answer.GetNodes(), hostnameOf) {
		if node.GetManagerStatus() != nil {
			managers = append(managers, node)
		}
	}
	return managers, err
}

// rotateDataKeys asks for fresh data keys, and waits for the managers that can be reached.
func (p *program) rotateDataKeys(ctx context.Context, c *client.Client, detach bool) error {
	answer, err := c.Control.RotateDataKeys(ctx, &api.RotateDataKeysRequest{})
	if err != nil || detach {
		return err
	}
	absent, err := p.awaitDataKeys(ctx, c, answer.GetGeneration())
	if err != nil {
		return err
	}
	if err := p.printf("Successfully rotated data keys.\n"); err != nil || len(absent) == 0 {
		return err
	}
	p.warn([]string{"can't be reached, and will rotate their data keys when they are back: " + strings.Join(absent, ", ")})
	return nil
}

// awaitDataKeys returns once all managers that can be reached have followed a rotation, and names the others.
func (p *program) awaitDataKeys(ctx context.Context, c *client.Client, generation uint64) (absent []string, err error) {
	var waiting []string
	for range maxKeyPolls {
		managers, err := listManagers(ctx, c)
		switch kind := fault.KindOf(err); {
		case ctx.Err() != nil:
			return nil, &interruptedError{check: "skep swarm data-key"}
		case err != nil && kind != fault.Unavailable && kind != fault.NotLeader:
			return nil, err
		case err == nil:
			if waiting, absent = behind(managers, generation); len(waiting) == 0 {
				return absent, nil
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(cmp.Or(p.opts.RetryPause, keyPollPause)):
		}
	}
	return nil, fault.New(fault.Unavailable, "these managers have not rotated their data keys yet, and go on trying: %s; "+
		"their daemons' logs say more, and 'skep swarm data-key' shows when they have", strings.Join(waiting, ", "))
}

// behind names the managers that have not followed a rotation: those that can be reached, and those that can't.
func behind(managers []*api.Node, generation uint64) (waiting, absent []string) {
	for _, node := range managers {
		switch {
		case node.GetDataKey().GetGeneration() >= generation:
		case node.GetManagerStatus().GetReachability() == api.Reachability_REACHABILITY_REACHABLE:
			waiting = append(waiting, hostnameOf(node))
		default:
			absent = append(absent, hostnameOf(node))
		}
	}
	return waiting, absent
}
