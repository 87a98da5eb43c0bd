package cli

import (
	"context"
	"path"
	"slices"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/flagvalue"
	"github.com/skep-io/skep/cmd/skep/cli/output"
	"github.com/skep-io/skep/cmd/skep/cli/view"
	"github.com/skep-io/skep/internal/fault"
)

// none is shown for an image without a name or tag.
const none = "<none>"

func (p *program) imageCommand() *cobra.Command {
	return group("image", "Manage images", p.imageLoad(), p.imageImport(), p.imageList(),
		p.completed(imageWords, p.imageInspect()), p.completed(imageWords, p.imageRemove()))
}

// imageRow is a line of `image ls`.
type imageRow struct {
	Repository   string
	Tag          string
	Digest       string
	ID           string
	CreatedSince string
	CreatedAt    string
	Size         string
}

const (
	imageTable       = "{{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
	imageDigestTable = "{{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}"
)

// imageListFlags are those of `image ls`.
type imageListFlags struct {
	listFlags
	digests, noTrunc bool
}

func (p *program) imageList() *cobra.Command {
	var flags imageListFlags
	cmd := &cobra.Command{
		Use: "ls [OPTIONS] [REPOSITORY[:TAG]]", Aliases: []string{"list"}, Short: "List images", Args: rangeArgs(0, 1),
	}
	flags.register(cmd, "Only show image IDs", listFormatHelp, "before", "dangling", "reference", "since")
	cmd.Flags().BoolVar(&flags.digests, "digests", false, "Show digests")
	cmd.Flags().BoolVar(&flags.noTrunc, "no-trunc", false, "Don't truncate output")
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		answer, err := c.Daemon.ListImages(ctx, &api.ListImagesRequest{})
		if err != nil {
			return err
		}
		selection, err := newImageSelection(ctx, c, flags.filter, args)
		if err != nil {
			return err
		}
		var objects []view.Image
		var rows []imageRow
		for _, image := range newestFirst(answer.GetImages()) {
			if v := view.NewImage(image); selection.takes(v) {
				objects = append(objects, v)
				rows = append(rows, p.imageRows(v, &flags, selection)...)
			}
		}
		table := imageTable
		if flags.digests {
			table = imageDigestTable
		}
		header := imageRow{
			Repository: "REPOSITORY", Tag: "TAG", Digest: "DIGEST", ID: "IMAGE ID", CreatedSince: "CREATED", CreatedAt: "CREATED AT",
			Size: "SIZE",
		}
		return writeList(p.out, &flags.listFlags, table, objects, header, rows)
	})
	return cmd
}

func newestFirst(images []*api.ImageInfo) []*api.ImageInfo {
	return slices.SortedStableFunc(slices.Values(images), func(a, b *api.ImageInfo) int {
		return b.GetCreatedAt().AsTime().Compare(a.GetCreatedAt().AsTime())
	})
}

// imageSelection is which images a list shows.
type imageSelection struct {
	filter flagvalue.Filter
	// name is the repository or reference that was asked for, or "".
	name          string
	before, since time.Time
}

func newImageSelection(ctx context.Context, c *client.Client, filter flagvalue.Filter, args []string) (*imageSelection, error) {
	s := &imageSelection{filter: filter}
	if len(args) == 1 {
		s.name = args[0]
	}
	created := func(key string) (time.Time, error) {
		names := filter[key]
		if len(names) == 0 {
			return time.Time{}, nil
		}
		answer, err := c.Daemon.GetImage(ctx, &api.GetImageRequest{Image: names[0]})
		return view.NewImage(answer.GetImage()).Created, err
	}
	var err error
	if s.before, err = created("before"); err != nil {
		return nil, err
	}
	if s.since, err = created("since"); err != nil {
		return nil, err
	}
	for _, value := range filter["dangling"] {
		if value != "true" && value != "false" {
			return nil, fault.New(fault.Invalid, "invalid filter 'dangling=%s': write true or false", value)
		}
	}
	for _, pattern := range filter["reference"] {
		if _, err := path.Match(pattern, ""); err != nil {
			return nil, fault.New(fault.Invalid, "invalid filter 'reference=%s': %w", pattern, err)
		}
	}
	return s, nil
}

func (s *imageSelection) takes(v view.Image) bool {
	if (!s.before.IsZero() && !v.Created.Before(s.before)) || (!s.since.IsZero() && !v.Created.After(s.since)) {
		return false
	}
	if !s.filter.Match("dangling", func(value string) bool { return (value == "true") == (len(v.RepoTags) == 0) }) {
		return false
	}
	if s.name == "" && len(s.filter["reference"]) == 0 {
		return true
	}
	return slices.ContainsFunc(v.RepoTags, s.takesTag)
}

// takesTag reports whether one reference of an image is asked for.
func (s *imageSelection) takesTag(tag string) bool {
	repository, _ := view.SplitTag(tag)
	if s.name != "" && s.name != tag && view.Familiar(s.name) != repository && view.Familiar(s.name) != tag {
		return false
	}
	return s.filter.Match("reference", func(pattern string) bool {
		whole, _ := path.Match(pattern, tag)
		name, _ := path.Match(pattern, repository)
		return whole || name
	})
}

// imageRows returns a line for each reference that is asked for; an image without one gets a line too.
func (p *program) imageRows(v view.Image, flags *imageListFlags, selection *imageSelection) []imageRow {
	row := imageRow{
		Repository: none, Tag: none, Digest: v.ID, ID: v.ID, CreatedSince: p.age(v.Created),
		CreatedAt: prettyTime(v.Created), Size: units.HumanSizeWithPrecision(float64(v.Size), 3),
	}
	if v.Created.IsZero() || v.Created.Equal(time.Unix(0, 0)) {
		row.CreatedSince = "N/A"
	}
	if !flags.noTrunc {
		row.ID = view.ShortDigest(v.ID)
	}
	if flags.quiet || len(v.RepoTags) == 0 {
		return []imageRow{row}
	}
	var rows []imageRow
	for _, tag := range v.RepoTags {
		if !selection.takesTag(tag) {
			continue
		}
		row.Repository, row.Tag = view.SplitTag(tag)
		if row.Tag == "" {
			row.Tag = none
		}
		rows = append(rows, row)
	}
	return rows
}

func (p *program) imageInspect() *cobra.Command {
	var flags inspectFlags
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] IMAGE [IMAGE...]", Short: "Display detailed information on one or more images", Args: minArgs(1),
	}
	flags.register(cmd)
	cmd.RunE = p.connected(func(ctx context.Context, c *client.Client, args []string) error {
		get := func(name string) (view.Image, error) {
			answer, err := c.Daemon.GetImage(ctx, &api.GetImageRequest{Image: name})
			if err != nil {
				return view.Image{}, err
			}
			return view.NewImage(answer.GetImage()).WithDetails(answer.GetConfig(), answer.GetLayers())
		}
		return inspectAll(args, get, func(found []view.Image) error {
			return output.Objects(p.out, flags.template(), found)
		})
	})
	return cmd
}

func (p *program) imageRemove() *cobra.Command {
	return &cobra.Command{
		Use: "rm IMAGE [IMAGE...]", Aliases: []string{"remove"}, Short: "Remove one or more images", Args: minArgs(1),
		RunE: p.connected(func(ctx context.Context, c *client.Client, args []string) error {
			return each(args, func(name string) error {
				answer, err := c.Daemon.RemoveImage(ctx, &api.RemoveImageRequest{Image: name})
				if err != nil {
					return err
				}
				for _, ref := range answer.GetUntagged() {
					if err := p.printf("Untagged: %s\n", view.Familiar(ref)); err != nil {
						return err
					}
				}
				for _, digest := range answer.GetDeleted() {
					if err := p.printf("Deleted: %s\n", digest); err != nil {
						return err
					}
				}
				return nil
			})
		}),
	}
}
