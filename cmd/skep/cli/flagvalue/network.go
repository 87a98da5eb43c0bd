package flagvalue

import "errors"

// Network is a network that a service can be on beside its own: "host", the node's, or "" where nothing was said.
type Network string

// Set takes a name.
func (n *Network) Set(text string) error {
	if text != "host" {
		return errors.New("write host: every container is on its node's bridge otherwise, and there are no other networks")
	}
	*n = Network(text)
	return nil
}

// String is the name.
func (n *Network) String() string { return string(*n) }

// Type is Docker's word.
func (n *Network) Type() string { return "network" }

// Host reports whether it is the node's.
func (n Network) Host() bool { return n == "host" }
