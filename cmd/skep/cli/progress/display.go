package progress

import (
	"fmt"
	"io"
	"strings"

	"github.com/skep-io/skep/cmd/skep/cli/output"
)

// stateWidth is the length of the longest state's name, so that bars stand below each other.
const stateWidth = len("preparing")

// Display shows lines, again and again.
type Display interface {
	// Show shows lines instead of those shown before.
	Show(lines []Line) error
}

// Quiet shows nothing.
type Quiet struct{}

// Show does nothing.
func (Quiet) Show([]Line) error { return nil }

// Plain writes each line that is new or changed, for files and pipes. Bars and empty lines are left out.
type Plain struct {
	w    io.Writer
	seen map[string]string
}

// NewPlain writes to w.
func NewPlain(w io.Writer) *Plain { return &Plain{w: w, seen: map[string]string{}} }

// Show writes what changed.
func (p *Plain) Show(lines []Line) error {
	for _, line := range lines {
		if line.Text == "" || p.seen[line.Key] == line.Text {
			continue
		}
		p.seen[line.Key] = line.Text
		if _, err := fmt.Fprintf(p.w, "%s: %s\n", line.Key, output.Printable(line.Text)); err != nil {
			return err
		}
	}
	return nil
}

// Live redraws all lines in place, on a terminal.
type Live struct {
	w     io.Writer
	width int
	drawn int
}

// NewLive draws on the terminal behind w, which is width columns wide.
func NewLive(w io.Writer, width int) *Live { return &Live{w: w, width: width} }

// Show moves up to the first line and writes all of them, clearing what is left of each and below them.
func (l *Live) Show(lines []Line) error {
	var b strings.Builder
	if l.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", l.drawn)
	}
	for _, line := range lines {
		text := output.Printable(line.Text)
		if line.Bar != "" {
			text = fmt.Sprintf("%-*s %s", stateWidth, text, line.Bar)
		}
		// A line that wraps would take two, and the next drawing would start too low.
		fmt.Fprintf(&b, "\r\x1b[2K%s\n", cut(line.Key+": "+text, l.width))
	}
	b.WriteString("\x1b[J")
	l.drawn = len(lines)
	_, err := io.WriteString(l.w, b.String())
	return err
}

// cut returns text with at most width characters, the last of which is … when something was left out.
func cut(text string, width int) string {
	runes := []rune(text)
	if len(runes) <= width {
		return text
	}
	return string(runes[:max(width-1, 0)]) + "…"
}
