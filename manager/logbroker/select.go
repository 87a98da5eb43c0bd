package logbroker

import (
	"bytes"
	"regexp"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

// maxGrep bounds a regular expression, in bytes: matching takes time in proportion to it, for each byte of a log.
const maxGrep = 1024

// selection says which lines are wanted. Nodes leave out the others already, but for those whose version does not know how.
type selection struct {
	until time.Time      // or zero
	grep  *regexp.Regexp // or nil
}

func newSelection(o *api.LogOptions) (s selection, err error) {
	if t := o.GetSince(); t != nil && t.CheckValid() != nil {
		return s, fault.New(fault.Invalid, "options.since: is not a valid time")
	}
	if t := o.GetUntil(); t != nil {
		if t.CheckValid() != nil {
			return s, fault.New(fault.Invalid, "options.until: is not a valid time")
		}
		s.until = t.AsTime()
	}
	if o.GetGrep() == "" {
		return s, nil
	}
	if n := len(o.GetGrep()); n > maxGrep {
		return s, fault.New(fault.Invalid, "options.grep: a regular expression of %d bytes: the most is %d", n, maxGrep)
	}
	if s.grep, err = regexp.Compile(o.GetGrep()); err != nil {
		return s, fault.New(fault.Invalid, "options.grep: %w", err)
	}
	return s, nil
}

// has reports whether a line is wanted.
func (s selection) has(line *api.LogLine) bool {
	if !s.until.IsZero() && line.GetTime().AsTime().After(s.until) {
		return false
	}
	return s.grep == nil || s.grep.Match(bytes.TrimSuffix(line.GetData(), []byte("\n")))
}
