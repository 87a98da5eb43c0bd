package events

import (
	"cmp"
	"math"
	"strconv"
	"strings"

	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
)

// cursor is the place of an event: the log entry, and its number among the events that came of it, from 1 on.
type cursor struct {
	index store.Index
	n     uint32
}

const (
	// later is the number of the last event that an entry of 4 MiB could have: what a manager notes after the entry has higher ones.
	later = 1_000_000
	// whole is the number that comes after all events of an entry.
	whole = math.MaxUint32
)

// maxCursor bounds what an error repeats of a cursor that is none.
const maxCursor = 64

func (c cursor) compare(other cursor) int {
	return cmp.Or(cmp.Compare(c.index, other.index), cmp.Compare(c.n, other.n))
}

// String is how people get it and give it back: 57.2, or 57 for all of the entry.
func (c cursor) String() string {
	index := strconv.FormatUint(c.index, 10)
	if c.n == whole {
		return index
	}
	return index + "." + strconv.FormatUint(uint64(c.n), 10)
}

// parseCursor reads what String writes.
func parseCursor(text string) (cursor, error) {
	index, n, numbered := strings.Cut(text, ".")
	c := cursor{n: whole}
	var err, err2 error
	c.index, err = strconv.ParseUint(index, 10, 64)
	if numbered {
		var number uint64
		number, err2 = strconv.ParseUint(n, 10, 32)
		c.n = uint32(number)
	}
	if err != nil || err2 != nil {
		return cursor{}, fault.New(fault.Invalid, "after: %q is no place among events: write the index of a log entry, or the cursor of an event such as 57.2",
			fault.Clip(text, maxCursor))
	}
	return c, nil
}
