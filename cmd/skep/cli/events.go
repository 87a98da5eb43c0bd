package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

// eventFlags are those of `events`.
type eventFlags struct {
	filter               flagvalue.Filter
	format               string
	json                 bool
	since, until, cursor string
}

func (p *program) eventsCommand() *cobra.Command {
	var flags eventFlags
	cmd := &cobra.Command{
		Use: "events [OPTIONS]", Short: "Get real time events from the swarm", Args: noArgs,
		Long: "Get real time events from the swarm: of services, tasks, nodes, secrets and configs.\n\n" +
			"Each event has an index, by which a later command goes on after it (--from). A manager keeps the last events in memory;\n" +
			"when those that are asked for are not kept any more, the command ends with exit code 10.",
	}
	set := cmd.Flags()
	set.VarP(&flags.filter, "filter", "f", "Filter output based on conditions provided")
	set.StringVar(&flags.format, "format", "", objectFormatHelp)
	set.BoolVar(&flags.json, "json", false, "Print one JSON object a line, as --format json")
	set.StringVar(&flags.since, "since", "", "Show all events created since timestamp")
	set.StringVar(&flags.until, "until", "", "Stream events until this timestamp")
	set.StringVar(&flags.cursor, "from", "", "Show all events after this index (e.g. 57.2), from any manager")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := flags.filter.Check("config", "event", "label", "node", "scope=swarm|local", "secret", "service", "task", "type=config|node|secret|service|task"); err != nil {
			return &usageError{command: cmd, err: err}
		}
		return cmp.Or(onlyOne(cmd, "json", "format"), onlyOne(cmd, "from", "since"))
	}
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		request, err := flags.request(p.opts.Now())
		if err != nil {
			return err
		}
		if flags.json {
			flags.format = "json"
		}
		stream, err := c.Events.WatchEvents(ctx, request)
		if err != nil {
			return err
		}
		return p.copyEvents(stream.Recv, &flags, request.GetSince().AsTime())
	})
	return cmd
}

func (f *eventFlags) request(now time.Time) (*api.WatchEventsRequest, error) {
	r := &api.WatchEventsRequest{After: f.cursor}
	for _, key := range slices.Sorted(maps.Keys(f.filter)) {
		r.Filters = append(r.Filters, &api.EventFilter{Key: key, Values: f.filter[key]})
	}
	var err error
	if r.Since, err = moment("since", f.since, now); err == nil {
		r.Until, err = moment("until", f.until, now)
	}
	return r, err
}

// copyEvents writes events until there are no more. The error for a stream that broke says where to go on.
func (p *program) copyEvents(next func() (*api.WatchEventsResponse, error), flags *eventFlags, since time.Time) error {
	position := ""
	for {
		answer, err := next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, context.Canceled):
			return progress.ErrInterrupted // without --until, there is no other end
		case err != nil && position != "" && fault.KindOf(err) == fault.Unavailable:
			return fault.New(fault.Unavailable, "%w (all events up to %s were shown: go on with --from %s)", err, position, position)
		case err != nil:
			return err
		}
		if kept := answer.GetCompleteSince(); kept != nil && flags.since != "" && kept.AsTime().After(since) {
			fmt.Fprintf(p.err, "Events before %s are not kept any more by this manager.\n", kept.AsTime().UTC().Format(logTimeFormat))
		}
		position = cmp.Or(answer.GetPosition(), position)
		for _, e := range answer.GetEvents() {
			if err := p.writeEvent(view.NewEvent(e), flags.format); err != nil {
				return err
			}
		}
	}
}

func (p *program) writeEvent(e view.Event, format string) error {
	if format != "" {
		return output.Objects(p.out, format, []view.Event{e})
	}
	return p.printf("%s\n", output.Printable(eventLine(e)))
}

// eventLine is Docker's line, with the index at the end: TIME TYPE ACTION ID (name=web, …, index=57.2).
func eventLine(e view.Event) string {
	var attributes []string
	for _, key := range slices.Sorted(maps.Keys(e.Actor.Attributes)) {
		attributes = append(attributes, key+"="+e.Actor.Attributes[key])
	}
	attributes = append(attributes, "index="+e.Cursor)
	return fmt.Sprintf("%s %s %s %s (%s)", time.Unix(0, e.TimeNano).UTC().Format(logTimeFormat), e.Type, e.Action, e.Actor.ID, strings.Join(attributes, ", "))
}
