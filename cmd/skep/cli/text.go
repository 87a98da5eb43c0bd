package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"

	"github.com/skep-io/skep/cmd/skep/cli/output"
)

// age says how long ago t was, as Docker does; "" for no time.
func (p *program) age(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return units.HumanDuration(max(p.opts.Now().Sub(t), 0)) + " ago"
}

// prettyTime writes a time as Docker's --pretty does.
func prettyTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999999 -0700 utc") }

// joinLabels writes labels sorted, on one line.
func joinLabels(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, key+"="+labels[key])
	}
	return strings.Join(parts, ",")
}

func writePrettyLabels(b *strings.Builder, labels map[string]string) {
	if len(labels) == 0 {
		return
	}
	b.WriteString("Labels:\n")
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		fmt.Fprintf(b, " - %s=%s\n", key, labels[key])
	}
}

// eachPretty writes n pages with an empty line between them.
func (p *program) eachPretty(n int, page func(i int) string) error {
	for i := range n {
		if i > 0 {
			if err := p.printf("\n"); err != nil {
				return err
			}
		}
		if err := p.printf("%s", output.PrintableLines(page(i))); err != nil {
			return err
		}
	}
	return nil
}

// capitalized returns a word with its first letter in upper case.
func capitalized(word string) string {
	if word == "" {
		return ""
	}
	return strings.ToUpper(word[:1]) + word[1:]
}

// sortedBy returns the objects in the order of their keys, so that a list looks the same each time.
func sortedBy[T any](objects []T, key func(T) string) []T {
	return slices.SortedStableFunc(slices.Values(objects), func(a, b T) int { return cmp.Compare(key(a), key(b)) })
}
