// Package logselect says which lines of a task's log are wanted. Nodes leave out the others, and managers do for nodes whose version
// does not know how: both by this.
package logselect

import (
	"bytes"
	"regexp"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// MaxGrep bounds a regular expression, in bytes: matching takes time in proportion to it, for each byte of a log.
const MaxGrep = 1024

// Selection says which lines are wanted, beside those that since and tail leave out. The zero value is all.
type Selection struct {
	// Until is the time of the last line that is wanted, or zero.
	Until time.Time
	grep  *regexp.Regexp // or nil
}

// New reads a selection; an error is of the kind fault.Invalid and names the option.
func New(o *api.LogOptions) (s Selection, err error) {
	if t := o.GetSince(); t != nil && t.CheckValid() != nil {
		return s, fault.New(fault.Invalid, "options.since: is not a valid time")
	}
	if t := o.GetUntil(); t != nil {
		if t.CheckValid() != nil {
			return s, fault.New(fault.Invalid, "options.Until: is not a valid time")
		}
		s.Until = t.AsTime()
	}
	if o.GetGrep() == "" {
		return s, nil
	}
	if n := len(o.GetGrep()); n > MaxGrep {
		return s, fault.New(fault.Invalid, "options.grep: a regular expression of %d bytes: the most is %d", n, MaxGrep)
	}
	if s.grep, err = regexp.Compile(o.GetGrep()); err != nil {
		return s, fault.New(fault.Invalid, "options.grep: %w", err)
	}
	return s, nil
}

// Narrows reports whether there may be lines that are not wanted.
func (s Selection) Narrows() bool { return s.grep != nil || !s.Until.IsZero() }

// Has reports whether a line is wanted. The end of the line is no part of what is matched.
func (s Selection) Has(at time.Time, text []byte) bool {
	if !s.Until.IsZero() && at.After(s.Until) {
		return false
	}
	return s.grep == nil || s.grep.Match(bytes.TrimSuffix(text, []byte("\n")))
}
