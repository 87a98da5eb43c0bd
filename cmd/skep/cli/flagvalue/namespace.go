package flagvalue

import "errors"

// Namespace says whose namespace a container has: "host", "private", or "" where nothing was said.
type Namespace string

// Set takes a value.
func (n *Namespace) Set(text string) error {
	if text != "host" && text != "private" {
		return errors.New("write private or host")
	}
	*n = Namespace(text)
	return nil
}

// String is the value.
func (n *Namespace) String() string { return string(*n) }

// Type is Docker's word.
func (n *Namespace) Type() string { return "string" }

// Host reports whether it is the host's.
func (n Namespace) Host() bool { return n == "host" }
