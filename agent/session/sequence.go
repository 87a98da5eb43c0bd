package session

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// maxAssignments is the most bytes of what comes in parts: a thousand of the largest objects.
const maxAssignments = 1 << 30

var (
	// errGap is returned when a change doesn't follow the last one: some were lost, and everything must be sent again.
	errGap = errors.New("assignments have a gap")
	// errLarge is returned when there is more than a node takes.
	errLarge = fmt.Errorf("what is assigned to this node has more than %d MiB: let it have fewer tasks, or smaller secrets and configs", maxAssignments>>20)
)

// sequence checks that assignments follow each other, and puts those together that come in parts (S2). The zero value expects a complete message.
type sequence struct {
	begun bool
	last  uint64
	// parts are the changes so far of a message of which more is to come, with its number and their size.
	parts    []*api.AssignmentChange
	resultIn uint64
	size     int
}

// accept takes in the next message. It returns the changes once all of them are there, or errGap or errLarge.
func (s *sequence) accept(m *api.AssignmentsResponse) (changes []*api.AssignmentChange, whole bool, err error) {
	if !m.GetComplete() && (!s.begun || m.GetAppliesTo() != s.last) || s.size > 0 && m.GetResultsIn() != s.resultIn {
		return nil, false, errGap
	}
	s.parts, s.size = append(s.parts, m.GetChanges()...), s.size+proto.Size(m)
	switch {
	case s.size > maxAssignments:
		return nil, false, errLarge
	case m.GetMore():
		s.resultIn = m.GetResultsIn()
		return nil, false, nil
	}
	changes = s.parts
	s.begun, s.last, s.parts, s.size = true, m.GetResultsIn(), nil, 0
	return changes, true, nil
}

// forget erases the secrets of a message of which the rest never comes.
func (s *sequence) forget() {
	for _, change := range s.parts {
		clear(change.GetSecret().GetSpec().GetData())
	}
	s.parts, s.size = nil, 0
}
