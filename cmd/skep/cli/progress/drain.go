package progress

import (
	"cmp"
	"slices"

	"github.com/skep-io/skep/cmd/skep/cli/view"
)

// DrainLines makes the lines about a drain. A service that has left keeps its line. The zero value is ready.
type DrainLines struct {
	order []view.DrainedService // as they were seen first
}

// Of returns what is left on a node, and of which services, with what holds them up.
func (d *DrainLines) Of(drain *view.Drain) []Line {
	lines := []Line{{Key: "overall progress", Text: drain.State}}
	left := map[string]string{}
	for _, s := range drain.Services {
		left[s.ID] = s.String()
		if !slices.ContainsFunc(d.order, func(seen view.DrainedService) bool { return seen.ID == s.ID }) {
			d.order = append(d.order, s)
		}
	}
	for _, s := range d.order {
		lines = append(lines, Line{Key: s.Name, Text: cmp.Or(left[s.ID], "no tasks left")})
	}
	return lines
}
