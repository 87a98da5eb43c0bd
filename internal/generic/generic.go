package generic

import "regexp"

const (
	// MaxKinds is how many kinds a node may have, or a service reserve.
	MaxKinds = 64
	// MaxIDs is how many ids of one kind a node may have.
	MaxIDs = 1024
)

var kindPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// ValidKind reports whether a kind is one: letters, digits and _ . -, at most 64 characters.
func ValidKind(kind string) bool { return kindPattern.MatchString(kind) }
