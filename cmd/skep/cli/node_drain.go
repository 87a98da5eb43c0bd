package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// drainPause is the time between two looks at a drain, and maxDrainBreaks how many of them may fail in a row: longer than the election
	// of a leader and the restart of a daemon take.
	drainPause     = 500 * time.Millisecond
	maxDrainBreaks = 60
)

// drainFlags are those of `node update --availability drain`.
type drainFlags struct {
	timeout time.Duration
	timed   bool
	wait    waitFlags
}

func (f *drainFlags) register(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.timeout, "timeout", 0, "Move the rest at once when a drain takes longer, whatever the update policies say (default for ever)")
	cmd.Flags().BoolVarP(&f.wait.detach, "detach", "d", false, "Exit immediately instead of waiting for the node to be drained")
	cmd.Flags().BoolVarP(&f.wait.quiet, "quiet", "q", false, "Suppress progress output")
}

// check refuses flags that mean nothing.
func (f *drainFlags) check(cmd *cobra.Command, drains bool) error {
	f.timed = cmd.Flags().Changed("timeout")
	switch {
	case f.timed && !drains:
		return &usageError{command: cmd, err: errors.New("--timeout is for drains: give it with --availability drain")}
	case f.timeout < 0:
		return &usageError{command: cmd, err: errors.New("--timeout: a drain can't take less than no time")}
	}
	return nil
}

// limit is how long the drain goes by the update policies; nil is for ever.
func (f *drainFlags) limit() *durationpb.Duration {
	if !f.timed {
		return nil
	}
	return durationpb.New(f.timeout)
}

// awaitDrain shows what is left on a node until it is drained, or nothing more will be heard of it.
func (p *program) awaitDrain(ctx context.Context, c *client.Client, node *api.Node, quiet bool) error {
	display, breaks, lines := p.display(quiet), 0, new(progress.DrainLines)
	version := node.GetMeta().GetVersion()
	for {
		answer, err := c.Control.GetNode(ctx, &api.GetNodeRequest{Node: node.GetId()})
		now := answer.GetNode()
		status := now.GetStatus()
		switch kind := fault.KindOf(err); {
		case ctx.Err() != nil:
			return &interruptedError{check: "skep node inspect --pretty " + node.GetId()}
		case err != nil && (breaks >= maxDrainBreaks || kind != fault.Unavailable && kind != fault.NotLeader):
			return err
		case err != nil:
			breaks++
		case now.GetMeta().GetVersion() < version:
			// A manager that has not heard yet of the change.
		case now.GetSpec().GetAvailability() != api.Availability_AVAILABILITY_DRAIN:
			return fault.New(fault.Conflict, "node %s was made %s before it was drained", node.GetId(), view.Availability(now.GetSpec().GetAvailability()))
		case status.GetDrain() == nil:
			return fault.New(fault.Precondition, "this manager is too old to say how far a drain is: see `skep node ps %s`", node.GetId())
		default:
			breaks = 0
			if err := display.Show(lines.Of(view.NewDrain(status))); err != nil || status.GetDrain().GetTasksLeft() == 0 {
				return err
			}
			if status.GetState() == api.NodeState_NODE_STATE_DOWN {
				p.warn([]string{"the node is down: its tasks are replaced elsewhere, and whether they have ended there is not known"})
				return nil
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(cmp.Or(p.opts.RetryPause, drainPause)):
		}
	}
}

// writePrettyDrain writes how far the drain of a node is, if it is drained.
func writePrettyDrain(b *strings.Builder, n view.Node) {
	d := n.Status.Drain
	if d == nil {
		return
	}
	fmt.Fprintf(b, "Drain:\n State:\t\t\t%s\n", capitalized(d.State))
	if n.Spec.DrainTimeout != nil && d.Since != nil {
		fmt.Fprintf(b, " By policy until:\t%s\n", prettyTime(d.Since.Add(*n.Spec.DrainTimeout)))
	}
	for _, s := range d.Services {
		fmt.Fprintf(b, " %s:\t\t%s\n", s.Name, s)
	}
}
