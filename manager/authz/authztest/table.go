package authztest

import (
	"fmt"
	"slices"
	"strings"
)

// The outcomes of a call.
const (
	allowed      = "allowed"
	refused      = "refused"
	noConnection = "no connection"
)

// Table is what a sweep found: for each door of the daemon, what each identity gets from each RPC.
type Table struct{ doors []*doorTable }

// doorTable is the part of one door.
type doorTable struct {
	title      string
	identities []string // in order
	methods    []string // in order
	outcomes   map[string]map[string]string
}

func (t *Table) door(title string, methods []string) *doorTable {
	d := &doorTable{title: title, methods: methods, outcomes: map[string]map[string]string{}}
	t.doors = append(t.doors, d)
	return d
}

func (d *doorTable) note(identity string, outcomes map[string]string) {
	d.identities = append(d.identities, identity)
	d.outcomes[identity] = outcomes
}

// Markdown returns the table as a page shows it: a section for each door, a row for each RPC, and a column for each identity that gets
// a connection. The others are named above.
func (t *Table) Markdown() string {
	var b strings.Builder
	for _, d := range t.doors {
		fmt.Fprintf(&b, "## %s\n\n", d.title)
		d.write(&b)
	}
	return b.String()
}

func (d *doorTable) write(b *strings.Builder) {
	var in, out []string
	for _, id := range d.identities {
		if d.connects(id) {
			in = append(in, id)
		} else {
			out = append(out, id)
		}
	}
	if len(out) > 0 {
		fmt.Fprintf(b, "Get no connection: %s.\n\n", strings.Join(out, "; "))
	}
	fmt.Fprintf(b, "| | %s |\n|---|%s\n", strings.Join(in, " | "), strings.Repeat(":-:|", len(in)))
	for _, m := range d.methods {
		fmt.Fprintf(b, "| %s |", m)
		for _, id := range in {
			fmt.Fprintf(b, " %s |", map[string]string{allowed: "yes", refused: ""}[d.outcomes[id][m]])
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

// connects reports whether an identity got as far as to call something.
func (d *doorTable) connects(identity string) bool {
	return slices.ContainsFunc(d.methods, func(m string) bool { return d.outcomes[identity][m] != noConnection })
}
