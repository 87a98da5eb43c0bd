package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// statsPause is the time between two samples.
	statsPause = time.Second
	statsTable = "{{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
	// clearScreen moves to the upper left corner and clears what is below (ECMA-48).
	clearScreen = "\x1b[H\x1b[J"
)

// errNoStats is wrapped by the error for a node whose statistics are missing.
var errNoStats = errors.New("are missing")

// statsRow is a line of `stats`, with Docker's fields and the node's name.
type statsRow struct {
	ID        string
	Container string
	Name      string
	Node      string
	CPUPerc   string
	MemUsage  string
	MemPerc   string
	NetIO     string
	BlockIO   string
	PIDs      string
}

type statsFlags struct {
	listFlags
	noStream, noTrunc bool
}

func (p *program) statsCommand() *cobra.Command {
	var flags statsFlags
	cmd := &cobra.Command{
		Use: "stats [OPTIONS] [SERVICE|TASK...]", Short: "Display a live stream of what tasks use of their nodes",
		Long: "Display a live stream of what tasks use of their nodes: of those named, or of all that run.\n" +
			"A task is named by its id or by its service and slot, such as web.1.",
		Args: cobra.ArbitraryArgs,
	}
	set := cmd.Flags()
	set.BoolVar(&flags.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	set.BoolVar(&flags.noTrunc, "no-trunc", false, "Do not truncate output")
	flags.registerFormat(cmd, "Format output using a custom template: 'table', 'table TEMPLATE', 'json' or a Go template",
		"Print a JSON array for each result")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		s := statsView{p: p, flags: &flags, client: c, request: &api.ReadStatsRequest{Targets: args}, told: map[string]bool{}}
		return s.run(ctx)
	})
	return cmd
}

// statsView is one run of `stats`.
type statsView struct {
	p       *program
	flags   *statsFlags
	client  *client.Client
	request *api.ReadStatsRequest
	// before has the last sample of each task.
	before map[string]*api.TaskStats
	// told are the gaps that were told of already.
	told map[string]bool
}

// run shows one sample after the other; the first is only what the second is compared with.
func (s *statsView) run(ctx context.Context) error {
	answer, err := s.sample(ctx)
	if err != nil {
		return err
	}
	for {
		s.before = map[string]*api.TaskStats{}
		for _, t := range answer.GetTasks() {
			s.before[t.GetTaskId()] = t
		}
		select {
		case <-ctx.Done():
			return progress.ErrInterrupted // there is no other end to a stream
		case <-time.After(cmp.Or(s.p.opts.RetryPause, statsPause)):
		}
		if answer, err = s.sample(ctx); err != nil {
			return err
		}
		if err := s.show(answer); err != nil {
			return err
		}
		if s.flags.noStream {
			return gapsOf(answer).orNil()
		}
		s.tell(gapsOf(answer))
	}
}

func (s *statsView) sample(ctx context.Context) (*api.ReadStatsResponse, error) {
	answer, err := s.client.Control.ReadStats(ctx, s.request)
	if err != nil && ctx.Err() != nil {
		return nil, progress.ErrInterrupted
	}
	return answer, err
}

// gapsOf returns an error for each node whose statistics are missing.
func gapsOf(answer *api.ReadStatsResponse) failures {
	var out failures
	for _, gap := range answer.GetGaps() {
		out = append(out, fault.New(fault.Unavailable, "statistics of node %s %w: %s", gap.GetNodeId(), errNoStats, gap.GetReason()))
	}
	return out
}

// tell writes gaps that are new; one that ended and began again is told again.
func (s *statsView) tell(gaps failures) {
	now := map[string]bool{}
	for _, gap := range gaps {
		now[gap.Error()] = true
		if !s.told[gap.Error()] {
			fmt.Fprintln(s.p.err, output.Printable(gap.Error()))
		}
	}
	s.told = now
}

func (s *statsView) show(answer *api.ReadStatsResponse) error {
	header := statsRow{
		ID: "CONTAINER ID", Container: "CONTAINER", Name: "NAME", Node: "NODE", CPUPerc: "CPU %", MemUsage: "MEM USAGE / LIMIT",
		MemPerc: "MEM %", NetIO: "NET I/O", BlockIO: "BLOCK I/O", PIDs: "PIDS",
	}
	var objects []view.TaskStats
	var rows []statsRow
	for _, t := range answer.GetTasks() {
		stats := view.NewTaskStats(t, s.before[t.GetTaskId()])
		objects = append(objects, stats)
		rows = append(rows, s.row(stats))
	}
	if s.p.opts.IsTerminal(s.p.out) && !s.flags.noStream && !s.flags.json {
		if _, err := io.WriteString(s.p.out, clearScreen); err != nil {
			return err
		}
	}
	return writeList(s.p.out, &s.flags.listFlags, statsTable, objects, header, rows)
}

func (s *statsView) row(t view.TaskStats) statsRow {
	id := t.ID
	if !s.flags.noTrunc {
		id = view.ShortID(id)
	}
	percent := func(share float64) string { return fmt.Sprintf("%.2f%%", share) }
	pair := func(in, out uint64) string {
		const digits = 3
		return units.HumanSizeWithPrecision(float64(in), digits) + " / " + units.HumanSizeWithPrecision(float64(out), digits)
	}
	row := statsRow{
		ID: id, Container: id, Name: t.Name, Node: t.Node, CPUPerc: percent(t.CPUPercent),
		MemUsage: units.BytesSize(float64(t.Memory.Usage)) + " / " + units.BytesSize(float64(t.Memory.Limit)), MemPerc: percent(0),
		NetIO: "-- / --", BlockIO: pair(t.IO.ReadBytes, t.IO.WriteBytes), PIDs: fmt.Sprint(t.Pids.Current),
	}
	if t.Memory.Limit > 0 {
		row.MemPerc = percent(100 * float64(t.Memory.Usage) / float64(t.Memory.Limit))
	}
	if n := t.Network; n != nil {
		row.NetIO = pair(n.InBytes, n.OutBytes)
	}
	return row
}
