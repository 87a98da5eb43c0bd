package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/auditfile"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// auditLines is how many entries `audit ls` and `audit follow` show of what is there.
	auditLines = 100
	// auditTimeFormat has what people compare; an export has all of it.
	auditTimeFormat = "2006-01-02 15:04:05"
)

func (p *program) auditCommand() *cobra.Command {
	return group("audit", "Show and check the audit log", p.auditList(), p.auditFollow(), p.auditVerify(), p.auditExport())
}

// auditFlags select entries.
type auditFlags struct {
	since, until                   string
	caller, method, object, result string
	limit, after                   uint64
	json                           bool
}

func (a *auditFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&a.caller, "caller", "", "Only entries of a caller: its kind, id, name or address")
	flags.StringVar(&a.method, "method", "", "Only entries of a method, such as CreateSecret")
	flags.StringVar(&a.object, "object", "", "Only entries of an object: its kind, id, name or kind/name")
	flags.StringVar(&a.result, "result", "", `Only entries with a result, such as "ok" or "refused"`)
	flags.BoolVar(&a.json, "json", false, "Print one JSON object a line, as in an export")
}

func (a *auditFlags) registerSince(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.since, "since", "",
		`Only entries since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
}

func (a *auditFlags) request(now time.Time) (*api.ReadAuditRequest, error) {
	r := &api.ReadAuditRequest{
		After: a.after, Caller: a.caller, Method: a.method, Object: a.object, Result: a.result, Limit: a.limit,
	}
	var err error
	if r.Since, err = moment("since", a.since, now); err == nil {
		r.Until, err = moment("until", a.until, now)
	}
	return r, err
}

// readAudit calls log and entry with what the managers send.
func readAudit(ctx context.Context, c *client.Client, request *api.ReadAuditRequest, log func(*api.AuditLog) error, entry func(*api.AuditEntry) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.Audit.ReadAudit(ctx, request)
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && answer.GetLog() != nil {
			err = log(answer.GetLog())
		}
		for _, e := range answer.GetEntries() {
			if err == nil {
				err = entry(e)
			}
		}
		if err != nil {
			return err
		}
	}
}

func anyLog(*api.AuditLog) error { return nil }

func (p *program) auditList() *cobra.Command {
	var flags auditFlags
	cmd := &cobra.Command{Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List the last entries of the audit log", Args: noArgs}
	flags.register(cmd)
	flags.registerSince(cmd)
	cmd.Flags().StringVar(&flags.until, "until", "", "Only entries before timestamp or relative, as --since")
	cmd.Flags().Uint64VarP(&flags.limit, "limit", "n", auditLines, "Number of entries to show from the end of the log (0 = all)")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		request, err := flags.request(p.opts.Now())
		if err != nil {
			return err
		}
		if flags.json {
			return readAudit(ctx, c, request, anyLog, func(e *api.AuditEntry) error { return auditfile.WriteEntry(p.out, e) })
		}
		const gap = 3
		table := tabwriter.NewWriter(p.out, 0, 1, gap, ' ', 0)
		fmt.Fprintln(table, "ENTRY\tTIME\tCALLER\tADDRESS\tMETHOD\tOBJECT\tRESULT\tSUMMARY")
		err = readAudit(ctx, c, request, anyLog, func(e *api.AuditEntry) error {
			_, err := fmt.Fprintln(table, strings.Join(auditColumns(e), "\t"))
			return err
		})
		return errors.Join(err, table.Flush())
	})
	return cmd
}

// auditColumns are the columns of `audit ls`.
func auditColumns(entry *api.AuditEntry) []string {
	e := entry.GetEvent()
	caller := e.GetCallerKind()
	if e.GetCaller() != "" {
		caller += " " + view.ShortID(e.GetCaller())
	}
	object := e.GetObjectKind()
	if name := e.GetObjectName(); name != "" {
		object += "/" + name
	} else if e.GetObjectId() != "" {
		object += "/" + view.ShortID(e.GetObjectId())
	}
	summary := e.GetSummary()
	if e.GetCount() > 0 {
		summary = strings.TrimSpace(fmt.Sprintf("%s %d times since %s", summary, e.GetCount(),
			time.Unix(0, int64(e.GetFirstAt())).UTC().Format(auditTimeFormat)))
	}
	columns := []string{
		strconv.FormatUint(entry.GetSequence(), 10), entry.GetTime().AsTime().UTC().Format(auditTimeFormat),
		caller, e.GetAddress(), e.GetMethod(), object, e.GetResult(), summary,
	}
	for i := range columns {
		columns[i] = printable(columns[i])
	}
	return columns
}

// printable keeps what callers chose from changing how the output looks.
func printable(text string) string {
	quoted := strconv.Quote(text)
	if quoted[1:len(quoted)-1] == text {
		return text
	}
	return quoted
}

func (p *program) auditFollow() *cobra.Command {
	var flags auditFlags
	cmd := &cobra.Command{Use: "follow [OPTIONS]", Short: "Show entries of the audit log as they are written", Args: noArgs}
	flags.register(cmd)
	cmd.Flags().Uint64Var(&flags.after, "after", 0, "Go on after this entry, instead of showing the last ones")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, _ []string) error {
		request, err := flags.request(p.opts.Now())
		if err != nil {
			return err
		}
		request.Follow = true
		if request.GetAfter() == 0 {
			request.Limit = auditLines
		}
		write := func(e *api.AuditEntry) error { return p.printf("%s\n", strings.Join(auditColumns(e), "  ")) }
		if flags.json {
			write = func(e *api.AuditEntry) error { return auditfile.WriteEntry(p.out, e) }
		}
		return p.follow(ctx, c, request, write)
	})
	return cmd
}

// follow shows entries until it is interrupted. When its manager goes away it goes on after the last entry that it showed.
func (p *program) follow(ctx context.Context, c *client.Client, request *api.ReadAuditRequest, write func(*api.AuditEntry) error) error {
	breaks := 0
	for {
		err := readAudit(ctx, c, request, anyLog, func(e *api.AuditEntry) error {
			breaks, request.After, request.Limit = 0, e.GetSequence(), 0
			return write(e)
		})
		breaks++
		switch {
		case ctx.Err() != nil:
			return progress.ErrInterrupted // there is no other end to following
		case fault.KindOf(err) != fault.Unavailable || breaks > maxWatchBreaks:
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(p.retryPause()):
		}
	}
}

func (p *program) retryPause() time.Duration {
	if p.opts.RetryPause > 0 {
		return p.opts.RetryPause
	}
	return client.RetryPause
}
