package flagvalue

import (
	"errors"
	"time"
)

// off is the word for no period.
const off = "off"

// Period is the time between two events, or none. The zero value is none.
type Period time.Duration

// Set reads a duration, or "off".
func (p *Period) Set(text string) error {
	if text == off {
		*p = 0
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return errors.New(`must be a duration such as 24h or 90m, or "off"`)
	}
	*p = Period(d)
	return nil
}

// String returns the duration, or "off".
func (p *Period) String() string {
	if *p == 0 {
		return off
	}
	return time.Duration(*p).String()
}

// Type names the value in a help page.
func (*Period) Type() string { return "period" }
