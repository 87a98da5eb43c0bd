// Package constraint reads placement constraints and says which nodes meet them.
//
// It is not the scheduler: it knows one node at a time, and neither resources nor availability.
//
// # Grammar
//
//	constraint = key ( "==" | "!=" ) value      blanks around key and value are dropped
//	key        = "node.id" | "node.hostname" | "node.ip" | "node.role" | "node.platform.os" | "node.platform.arch"
//	           | "node.labels." label | "engine.labels." label
//	value      = one or more of A-Z a-z 0-9 : - _ . * ( ) ? + [ ] \ ^ $ | / and blanks
//
// Keys are compared without regard to case, except for the label, whose case counts. Values are compared whole and without
// regard to case: no pattern has a meaning, although its characters are allowed. The value of node.ip is an address or a
// prefix such as 10.0.0.0/8. Architectures go by all of their names: x86_64 is amd64, aarch64 is arm64.
//
// A label that a node lacks is equal to nothing: "==" fails and "!=" holds. Constraints of a set must all hold.
//
// # Concurrency and errors
//
// Values are immutable. Every error of [Parse] wraps [ErrInvalid] and quotes the expression.
package constraint
