package logs

import (
	"bytes"
	"regexp"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/logfile"
)

// maxGrep bounds a regular expression, in bytes: matching takes time in proportion to it, for each byte of a log.
const maxGrep = 1024

// selection says which lines are wanted, beside those that logfile leaves out. The zero value is all.
type selection struct {
	until time.Time      // or zero
	grep  *regexp.Regexp // or nil
}

func newSelection(o *api.LogOptions) (s selection, err error) {
	if t := o.GetUntil(); t != nil {
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

// narrows reports whether there may be lines that are not wanted.
func (s selection) narrows() bool { return s.grep != nil || !s.until.IsZero() }

// has reports whether a line is wanted. The end of the line is no part of what is matched.
func (s selection) has(e logfile.Entry) bool {
	if !s.until.IsZero() && e.Time.After(s.until) {
		return false
	}
	return s.grep == nil || s.grep.Match(bytes.TrimSuffix(e.Text, []byte("\n")))
}
