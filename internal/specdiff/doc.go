// Package specdiff says in what two specs of a service differ, field by field, in words for people.
//
// Values that are long are cut, and of bytes there is only how many: a difference fits in a line. It holds nothing that a spec does not
// show to everybody who may read it.
//
// Everything here is a pure function and safe for concurrent use.
package specdiff
