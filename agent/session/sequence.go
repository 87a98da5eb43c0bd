package session

import (
	"errors"

	"github.com/skep-io/skep/api"
)

// errGap is returned when a change doesn't follow the last one: some were lost, and everything must be sent again.
var errGap = errors.New("assignments have a gap")

// sequence checks that assignments follow each other (S2). The zero value expects a complete message.
type sequence struct {
	begun bool
	last  uint64
}

// accept takes in the next message, or returns errGap.
func (s *sequence) accept(m *api.AssignmentsResponse) error {
	if !m.GetComplete() && (!s.begun || m.GetAppliesTo() != s.last) {
		return errGap
	}
	s.begun, s.last = true, m.GetResultsIn()
	return nil
}
