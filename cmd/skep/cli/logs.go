package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

// logTimeFormat is Docker's: nine digits of a second, so that columns stand below each other.
const logTimeFormat = "2006-01-02T15:04:05.000000000Z07:00"

var (
	// errGap is wrapped by the error for a node whose lines are missing.
	errGap = errors.New("are missing")
	// errNotRead is wrapped by the error for lines that are missing although every node answers.
	errNotRead = errors.New("are missing")
)

// logFlags are those of `service logs`.
type logFlags struct {
	follow, noResolve, noTaskIDs, noTrunc, raw, timestamps, details, json bool
	since, until, tail, grep                                              string
}

func (p *program) serviceLogs() *cobra.Command {
	var flags logFlags
	cmd := &cobra.Command{
		Use: "logs [OPTIONS] SERVICE|TASK", Short: "Fetch the logs of a service or task", Args: exactArgs(1),
		Long: "Fetch the logs of a service or task\n\nTASK is a task's id, the beginning of one, or SERVICE.SLOT.",
	}
	set := cmd.Flags()
	set.BoolVar(&flags.details, "details", false, "Show extra details provided to logs: the labels of the task's container")
	set.BoolVarP(&flags.follow, "follow", "f", false, "Follow log output")
	set.BoolVar(&flags.noResolve, "no-resolve", false, "Do not map IDs to Names in output")
	set.BoolVar(&flags.noTaskIDs, "no-task-ids", false, "Do not include task IDs in output")
	set.BoolVar(&flags.noTrunc, "no-trunc", false, "Do not truncate output")
	set.BoolVar(&flags.raw, "raw", false, "Do not neatly format logs")
	set.StringVar(&flags.since, "since", "",
		`Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	set.StringVar(&flags.until, "until", "", "Show logs before a timestamp or relative, as --since; with --follow, end then")
	set.StringVar(&flags.grep, "grep", "", "Only show lines that match a regular expression (RE2); --tail counts those")
	set.BoolVar(&flags.json, "json", false, "Print one JSON object a line")
	set.StringVarP(&flags.tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	set.BoolVarP(&flags.timestamps, "timestamps", "t", false, "Show timestamps")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error { return onlyOne(cmd, "json", "raw") }
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		options, err := flags.options(p.opts.Now())
		if err != nil {
			return err
		}
		stream, err := c.Control.ReadLogs(ctx, &api.ReadLogsRequest{Target: args[0], Options: options})
		if err != nil {
			return err
		}
		return p.copyLogs(stream.Recv, &flags, func(id string) string {
			if flags.noResolve {
				return id
			}
			answer, err := c.Control.GetNode(ctx, &api.GetNodeRequest{Node: id})
			if hostname := hostnameOf(answer.GetNode()); err == nil && hostname != "" {
				return hostname
			}
			return id // its lines are missing whether or not it has a name
		})
	})
	return cmd
}

func (f *logFlags) options(now time.Time) (*api.LogOptions, error) {
	out := &api.LogOptions{Follow: f.follow, Tail: -1, Grep: f.grep, Details: f.details}
	if f.tail != "all" {
		n, err := strconv.ParseInt(f.tail, 10, 64)
		if err != nil {
			return nil, fault.New(fault.Invalid, "invalid value for --tail: %q: write a number of lines or all", f.tail)
		}
		out.Tail = n
	}
	var err error
	if out.Since, err = moment("since", f.since, now); err == nil {
		out.Until, err = moment("until", f.until, now)
	}
	return out, err
}

// moment reads the value of a flag that is a moment, or "" for none.
func moment(flag, text string, now time.Time) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	at, err := parseMoment(flag, text, now)
	if err != nil {
		return nil, err
	}
	return timestamppb.New(at), nil
}

// parseMoment reads the value of a flag that is a moment: an RFC 3339 time or a prefix of one, seconds since 1970, or a duration before now.
func parseMoment(flag, text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return now.Add(-ago), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	whole, fraction, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	nanos, err2 := strconv.ParseUint((fraction + "000000000")[:9], 10, 64)
	if err != nil || err2 != nil || len(fraction) > 9 {
		return time.Time{}, fault.New(fault.Invalid,
			`invalid value for "%s": %q: write a time such as 2013-01-02T13:23:37Z, or a duration such as 42m`, flag, text)
	}
	return time.Unix(seconds, int64(nanos)), nil
}

// copyLogs writes each line to the stream that the task wrote it to. Nodes whose lines are missing make it fail in the end.
func (p *program) copyLogs(next func() (*api.ReadLogsResponse, error), flags *logFlags, nodeName func(id string) string) error {
	var gaps failures
	for {
		answer, err := next()
		switch {
		case errors.Is(err, io.EOF):
			return gaps.orNil()
		case errors.Is(err, context.Canceled) && flags.follow:
			return progress.ErrInterrupted // there is no other end to following
		case err != nil:
			return err
		}
		if gap := answer.GetGap(); gap != nil {
			of, cause := "logs", errNotRead
			if gap.GetNodeId() != "" {
				of, cause = "logs of node "+nodeName(gap.GetNodeId()), errGap
			}
			gaps = append(gaps, fault.New(fault.Unavailable, "%s %w: %s", of, cause, gap.GetReason()))
		}
		line := answer.GetLine()
		if line == nil {
			continue
		}
		if n := line.GetMissed(); n > 0 {
			p.leftOut(fmt.Sprintf("%d lines of %s are missing here: they were removed before they could be read, or are damaged",
				n, view.TaskName(line.GetServiceName(), line.GetSlot())))
			if line.GetTime() == nil {
				continue // no line followed
			}
		}
		if flags.json {
			if err := output.Objects(p.out, "json", []view.LogLine{view.NewLogLine(line)}); err != nil {
				return err
			}
			continue
		}
		w := p.out
		if line.GetStream() == api.LogStream_LOG_STREAM_STDERR {
			w = p.err
		}
		if _, err := w.Write(flags.format(line)); err != nil {
			return err
		}
	}
}

// format returns a line with what Docker puts before it. A line without an end gets one unless it is wanted raw.
func (f *logFlags) format(line *api.LogLine) []byte {
	var b bytes.Buffer
	if !f.raw {
		b.WriteString(f.prefix(line))
	}
	if f.timestamps {
		b.WriteString(line.GetTime().AsTime().UTC().Format(logTimeFormat))
		b.WriteByte(' ')
	}
	if f.details {
		b.WriteString(detailsOf(line))
		b.WriteByte(' ')
	}
	b.Write(line.GetData())
	if !f.raw && !bytes.HasSuffix(line.GetData(), []byte("\n")) {
		b.WriteByte('\n')
	}
	return b.Bytes()
}

// detailsOf writes details as Docker does: a=b,c=d, with what could be mistaken escaped as in a URL.
func detailsOf(line *api.LogLine) string {
	var parts []string
	for _, key := range slices.Sorted(maps.Keys(line.GetDetails())) {
		parts = append(parts, url.QueryEscape(key)+"="+url.QueryEscape(line.GetDetails()[key]))
	}
	return strings.Join(parts, ",")
}

// prefix names the task and its node: web.1.2tf9m6rmqh7q@node-1    |
func (f *logFlags) prefix(line *api.LogLine) string {
	name := view.TaskName(line.GetServiceName(), line.GetSlot())
	if !f.noTaskIDs {
		id := line.GetTaskId()
		if !f.noTrunc {
			id = view.ShortID(id)
		}
		name += "." + id
	}
	node := line.GetNodeHostname()
	if f.noResolve || node == "" {
		node = line.GetNodeId()
		if !f.noTrunc {
			node = view.ShortID(node)
		}
	}
	return name + "@" + node + "    | "
}
