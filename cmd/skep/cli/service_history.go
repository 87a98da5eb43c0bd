package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/specdiff"
)

// revisionRow is a line of `service history`.
type revisionRow struct{ Revision, Created, By, Image, Changed string }

const revisionTable = "{{.Revision}}\t{{.Created}}\t{{.By}}\t{{.Image}}\t{{.Changed}}"

// maxChanged is the length in characters beyond which the names of changed fields are cut, unless the whole is asked for.
const maxChanged = 60

func (p *program) serviceHistory() *cobra.Command {
	var flags listFlags
	var whole bool
	cmd := &cobra.Command{Use: "history [OPTIONS] SERVICE", Short: "Show the last revisions of a service", Args: exactArgs(1)}
	flags.registerFormat(cmd, listFormatHelp, listJSONHelp)
	cmd.Flags().BoolVar(&whole, "no-trunc", false, "Don't truncate output, and show the values that changed")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		answer, err := c.Control.ListServiceRevisions(ctx, &api.ListServiceRevisionsRequest{Service: args[0]})
		if err != nil {
			return err
		}
		var objects []view.ServiceRevision
		var rows []revisionRow
		var before *api.ServiceSpec
		for _, r := range answer.GetRevisions() {
			v := view.NewServiceRevision(r)
			objects = append(objects, v)
			rows = append(rows, newRevisionRow(v, r, before, p.opts.Now(), whole))
			before = r.GetSpec()
		}
		slices.Reverse(rows) // newest first, as tasks are
		slices.Reverse(objects)
		header := revisionRow{Revision: "REVISION", Created: "CREATED", By: "BY", Image: "IMAGE", Changed: "CHANGED"}
		return writeList(p.out, &flags, revisionTable, objects, header, rows)
	})
	return cmd
}

func newRevisionRow(v view.ServiceRevision, r *api.ServiceRevision, before *api.ServiceSpec, now time.Time, whole bool) revisionRow {
	row := revisionRow{
		Revision: strconv.FormatUint(v.Revision, 10), By: v.ChangedBy, Image: view.ShortImage(v.Spec.TaskTemplate.ContainerSpec.Image),
		Created: strings.ToLower(units.HumanDuration(now.Sub(v.CreatedAt))) + " ago",
	}
	var parts []string
	if v.Restored != 0 {
		parts = append(parts, fmt.Sprintf("rolled back to %d", v.Restored))
	}
	if before != nil {
		all := specdiff.Of(before, r.GetSpec())
		if !whole {
			parts = append(parts, specdiff.Fields(all)...)
		}
		for _, d := range all {
			if whole {
				parts = append(parts, d.String())
			}
		}
	}
	row.Changed = strings.Join(parts, ", ")
	if runes := []rune(row.Changed); !whole && len(runes) > maxChanged {
		row.Changed = string(runes[:maxChanged-1]) + "…"
	}
	return row
}
