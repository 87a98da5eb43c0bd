package progress

import "sync"

// Board shows how several services converge at once: of each how far it is, and what holds it up. It may be used by several Runs at a
// time, each by its own part.
type Board struct {
	mu    sync.Mutex
	on    Display
	names []string
	lines map[string][]Line
}

// NewBoard shows the named services on a display, in this order.
func NewBoard(on Display, names []string) *Board {
	return &Board{on: on, names: names, lines: map[string][]Line{}}
}

// Of returns the display of one service.
func (b *Board) Of(name string) Display { return part{board: b, name: name} }

type part struct {
	board *Board
	name  string
}

// Show puts the lines in their place. Bars of tasks and countdowns are for who watches one service.
func (p part) Show(lines []Line) error {
	var kept []Line
	for i, line := range lines {
		switch {
		case i == 0:
			kept = append(kept, Line{Key: p.name, Text: line.Text})
		case line.Bar == "" && line.Text != "" && line.Key != verifyKey:
			kept = append(kept, Line{Key: p.name + " " + line.Key, Text: line.Text})
		}
	}
	b := p.board
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines[p.name] = kept
	var all []Line
	for _, name := range b.names {
		all = append(all, b.lines[name]...)
	}
	return b.on.Show(all)
}
