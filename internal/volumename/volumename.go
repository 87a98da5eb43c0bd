// Package volumename knows which names volumes have. Managers and nodes ask it alike: a name becomes a directory of the node.
package volumename

// Limits of a name's length, in bytes; more than Max is no path element with all that goes with it.
const (
	Min = 2
	Max = 128
)

// Valid reports whether a volume may have the name. It is Docker's pattern, within one path element: a letter or digit, and then letters,
// digits, underscores, dots and hyphens.
func Valid(name string) bool {
	if len(name) < Min || len(name) > Max {
		return false
	}
	for i := range len(name) {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '_' || c == '.' || c == '-'):
		default:
			return false
		}
	}
	return true
}
