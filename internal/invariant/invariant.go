// Package invariant states what must always hold, in a way that tests enforce and production survives.
//
// A broken invariant is a bug in Skep, never a user's mistake. In builds with the race detector or the tag "invariants" it
// panics, so that no test passes over it. Elsewhere the caller gets an error that it must treat as a refusal: the operation
// does not happen, and the error is logged where errors end.
//
//	if got != want {
//		return invariant.Violated("I3", "applied %d twice", index)
//	}
//
// The ids are those of the reliability programme (I1 to I15), or a short name for a local one. Values that could be secret
// must not be given as arguments.
package invariant

import (
	"errors"
	"fmt"
)

// ErrViolated is returned when a statement that must always hold does not; errors.Is finds it behind every [Violated].
var ErrViolated = errors.New("internal invariant does not hold, please report this as a bug")

// Violated says that the invariant id does not hold. It panics where Enabled is true and returns an error otherwise.
func Violated(id, format string, args ...any) error {
	err := fmt.Errorf("%s: %s: %w", id, fmt.Sprintf(format, args...), ErrViolated)
	if Enabled {
		panic(err)
	}
	return err
}
