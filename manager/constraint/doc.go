// Package constraint reads placement constraints and says which nodes meet them.
//
// It is not the scheduler: it knows one node at a time, and neither resources nor availability.
//
// # Grammar
//
//	constraint = key ( "==" | "!=" ) value
//	           | key [ "not" ] "in" "(" element { "," element } ")"
//	           | key [ "not" ] "exists"
//	           | label-key ( "<" | ">" ) number
//	key        = "node.id" | "node.hostname" | "node.ip" | "node.role" | "node.platform.os" | "node.platform.arch" | label-key
//	label-key  = "node.labels." label | "engine.labels." label
//	value      = one or more of A-Z a-z 0-9 : - _ . * ( ) ? + [ ] \ ^ $ | / and blanks
//	element    = a value without ( and )
//	number     = decimal digits, with an optional sign and fraction
//
// Blanks around all of them are dropped. The first line is Swarm's grammar; an expression that has one of its operators is read by it
// alone.
//
// Keys are compared without regard to case, except for the label, whose case counts. Values are compared whole and without
// regard to case: no pattern has a meaning, although its characters are allowed. The value of node.ip is an address or a
// prefix such as 10.0.0.0/8. Architectures go by all of their names: x86_64 is amd64, aarch64 is arm64.
//
// A label that a node lacks is equal to nothing, and in no list: "==" and "in" fails, "!=" and "not in" holds. A label that is no
// number is neither less nor greater than one. Constraints of a set must all hold.
//
// # Concurrency and errors
//
// Values are immutable. Every error of [Parse] wraps [ErrInvalid] and quotes the expression.
package constraint
