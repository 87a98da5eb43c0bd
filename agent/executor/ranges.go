package executor

import "errors"

const (
	// rangeSize is the number of user and group ids of a container: all 16-bit ids, which is what images use.
	rangeSize = 65536
	// DefaultUsernsBase is the first id of the first container's range, well above the ranges that distributions give to
	// people (/etc/subuid) and to systemd-nspawn.
	DefaultUsernsBase = 1 << 28
	// maxHostID bounds the ids: beyond it they are negative for some programs.
	maxHostID = 1 << 31
)

// errNoRange is returned when every range is in use.
var errNoRange = errors.New("no range of user ids is left for another container on this node")

// ranges hands out ranges of rangeSize ids of the node, by their first id. One that was given back is handed out again as late as
// possible, so that files that were left behind by mistake don't belong to the next container.
type ranges struct {
	base  uint32
	count uint32
	next  uint32
	taken map[uint32]bool
}

// newRanges returns the ranges from base on.
func newRanges(base uint32) *ranges {
	return &ranges{base: base, count: (maxHostID - base) / rangeSize, taken: map[uint32]bool{}}
}

// take hands out a range.
func (r *ranges) take() (first uint32, err error) {
	for range r.count {
		first := r.base + r.next*rangeSize
		r.next = (r.next + 1) % r.count
		if !r.taken[first] {
			r.taken[first] = true
			return first, nil
		}
	}
	return 0, errNoRange
}

// hold takes a certain range, as one that a container has already. It says whether it was free and is one of these.
func (r *ranges) hold(first uint32) bool {
	if first < r.base || (first-r.base)%rangeSize != 0 || (first-r.base)/rangeSize >= r.count || r.taken[first] {
		return false
	}
	r.taken[first] = true
	return true
}

// give takes a range back.
func (r *ranges) give(first uint32) { delete(r.taken, first) }
