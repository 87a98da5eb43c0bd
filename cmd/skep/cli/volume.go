package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// anonymousLabel is what Docker gives volumes that were made without a name.
	anonymousLabel = "com.docker.volume.anonymous"
	// nameBytes make a name of 64 characters, as Docker's.
	nameBytes   = 32
	localDriver = "local"
	volumeTable = "{{.Driver}}\t{{.Name}}\t{{.Node}}"
)

// errNoVolumes is wrapped by the error for a node whose volumes are missing.
var errNoVolumes = errors.New("are missing")

func (p *program) volumeCommand() *cobra.Command {
	return group("volume", "Manage the volumes of nodes", p.volumeCreate(), p.volumeList(), p.completed(volumeWords, p.volumeInspect()),
		p.completed(volumeWords, p.volumeRemove()), p.volumePrune())
}

func (p *program) volumeCreate() *cobra.Command {
	var labels flagvalue.Labels
	var driver, node string
	cmd := &cobra.Command{
		Use: "create [OPTIONS] [VOLUME]", Short: "Create a volume on a node", Args: rangeArgs(0, 1),
	}
	flags := cmd.Flags()
	flags.StringVarP(&driver, "driver", "d", localDriver, "Specify volume driver name")
	flags.Var(&labels, "label", "Set metadata for a volume")
	flags.StringVar(&node, "node", "", "The node that gets it (default the one that is asked)")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		if driver != localDriver {
			return fault.New(fault.Invalid, "there is no volume driver %q: the only one is %s", driver, localDriver)
		}
		r := &api.CreateVolumeRequest{Labels: labels, Node: node}
		if len(args) > 0 {
			r.Volume = args[0]
		} else {
			r.Volume, r.Labels = anonymous(labels)
		}
		answer, err := c.Volumes.CreateVolume(ctx, r)
		if err != nil {
			return err
		}
		return p.printf("%s\n", answer.GetVolume().GetName())
	})
	return cmd
}

// anonymous returns a random name, and labels with the one that says so.
func anonymous(labels map[string]string) (string, map[string]string) {
	name := make([]byte, nameBytes)
	_, _ = rand.Read(name) // never fails: the program ends instead
	out := map[string]string{anonymousLabel: ""}
	maps.Copy(out, labels)
	return hex.EncodeToString(name), out
}

// volumeRow is a line of `volume ls`, with Docker's fields and the node.
type volumeRow struct {
	Driver     string
	Name       string
	Scope      string
	Mountpoint string
	Labels     string
	Node       string
	labels     map[string]string
}

// Label returns the value of one label.
func (r volumeRow) Label(name string) string { return r.labels[name] }

// ID is what -q shows: volumes have no id.
func (r volumeRow) ID() string { return r.Name }

func (p *program) volumeList() *cobra.Command {
	var flags listFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List volumes of all nodes", Args: noArgs,
	}
	flags.register(cmd, "Only display volume names", listFormatHelp, "dangling=true|false|1|0", "driver", "label", "name", "node")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		answer, err := c.Volumes.ListVolumes(ctx, &api.ListVolumesRequest{})
		if err != nil {
			return err
		}
		var objects []view.Volume
		var rows []volumeRow
		for _, volume := range answer.GetVolumes() {
			v := view.NewVolume(volume)
			dangling := func(value string) bool {
				wanted, err := strconv.ParseBool(value)
				return err == nil && wanted == (len(v.Tasks) == 0)
			}
			f := flags.filter
			if !f.Match("dangling", dangling) || !f.Equal("driver", v.Driver) || !f.Labels("label", v.Labels) || !f.Prefix("name", v.Name) ||
				!f.Prefix("node", v.Node, v.NodeID) {
				continue
			}
			objects = append(objects, v)
			rows = append(rows, volumeRow{
				Driver: v.Driver, Name: v.Name, Scope: v.Scope, Mountpoint: v.Mountpoint, Labels: joinLabels(v.Labels), Node: v.Node, labels: v.Labels,
			})
		}
		header := volumeRow{Driver: "DRIVER", Name: "VOLUME NAME", Scope: "SCOPE", Mountpoint: "MOUNTPOINT", Labels: "LABELS", Node: "NODE"}
		if err := writeList(p.out, &flags, volumeTable, objects, header, rows); err != nil {
			return err
		}
		return volumeGaps(answer).orNil()
	})
	return cmd
}

// volumeGaps returns an error for each node whose volumes are missing.
func volumeGaps(answer *api.ListVolumesResponse) failures {
	var out failures
	for _, gap := range answer.GetGaps() {
		out = append(out, fault.New(fault.Unavailable, "volumes of node %s %w: %s", gap.GetNodeHostname(), errNoVolumes, gap.GetReason()))
	}
	return out
}

func volumeWords(ctx context.Context, c *client.Client) ([]string, error) {
	answer, err := c.Volumes.ListVolumes(ctx, &api.ListVolumesRequest{})
	return mapped(answer.GetVolumes(), (*api.Volume).GetName), err
}

func (p *program) volumeInspect() *cobra.Command {
	var flags inspectFlags
	var node string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] VOLUME [VOLUME...]", Short: "Display detailed information on one or more volumes, of all nodes", Args: minArgs(1),
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&node, "node", "", "Only of this node")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		found := []view.Volume{}
		missing := each(args, func(name string) error {
			answer, err := c.Volumes.ListVolumes(ctx, &api.ListVolumesRequest{Volume: name, Node: node})
			if err != nil {
				return err
			}
			for _, v := range answer.GetVolumes() {
				found = append(found, view.NewVolume(v))
			}
			gaps := volumeGaps(answer)
			if len(answer.GetVolumes()) == 0 && len(gaps) == 0 {
				return fault.New(fault.NotFound, "no such volume: %s", name)
			}
			return gaps.orNil()
		})
		if err := output.Objects(p.out, flags.template(), found); err != nil {
			return err
		}
		return missing
	})
	return cmd
}

func (p *program) volumeRemove() *cobra.Command {
	var force bool
	var node string
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] VOLUME [VOLUME...]", Aliases: []string{"remove"}, Short: "Remove one or more volumes, with all that is in them", Args: minArgs(1),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Don't fail for volumes that are not there")
	cmd.Flags().StringVar(&node, "node", "", "The node that has them (default the one that has a volume of the name)")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		return each(args, func(name string) error {
			_, err := c.Volumes.RemoveVolume(ctx, &api.RemoveVolumeRequest{Volume: name, Node: node})
			if err != nil && !(force && fault.KindOf(err) == fault.NotFound) {
				return err
			}
			return p.printf("%s\n", name)
		})
	})
	return cmd
}

func (p *program) volumePrune() *cobra.Command {
	var filter flagvalue.Filter
	var all, force bool
	var node string
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused volumes", Args: noArgs,
		Long: "Remove volumes that no task uses, with all that is in them: those that were made without a name, or all (--all).",
	}
	flags := cmd.Flags()
	flags.BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	flags.Var(&filter, "filter", `Provide filter values (e.g. "label=<label>")`)
	flags.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	flags.StringVar(&node, "node", "", "Only on this node (default all)")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := filter.Check("label"); err != nil {
			return &usageError{command: cmd, err: err}
		}
		return nil
	}
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		answer, err := c.Volumes.ListVolumes(ctx, &api.ListVolumesRequest{Node: node})
		if err != nil {
			return err
		}
		if sure, err := p.surePrune(ctx, all, force); err != nil || !sure {
			return err
		}
		var failed failures
		title := "Deleted Volumes:\n"
		for _, v := range answer.GetVolumes() {
			_, unnamed := v.GetLabels()[anonymousLabel]
			if len(v.GetTaskIds()) > 0 || !all && !unnamed || !filter.Labels("label", v.GetLabels()) {
				continue
			}
			_, err := c.Volumes.RemoveVolume(ctx, &api.RemoveVolumeRequest{Volume: v.GetName(), Node: v.GetNodeId()})
			switch fault.KindOf(err) {
			case fault.Precondition, fault.NotFound:
				continue // a task uses it by now, or it is gone
			}
			if err != nil {
				failed = append(failed, err)
				continue
			}
			if err := p.printf("%s%s on %s\n", title, v.GetName(), output.Printable(v.GetNodeHostname())); err != nil {
				return err
			}
			title = ""
		}
		return append(failed, volumeGaps(answer)...).orNil()
	})
	return cmd
}

// surePrune asks whether volumes are to be removed.
func (p *program) surePrune(ctx context.Context, all, force bool) (bool, error) {
	if force {
		return true, nil
	}
	which := "anonymous volumes"
	if all {
		which = "volumes, and all that is in them,"
	}
	question := fmt.Sprintf("WARNING! This will remove all %s that no task uses.\nAre you sure you want to continue? [y/N] ", which)
	return p.confirmed(ctx, question)
}
