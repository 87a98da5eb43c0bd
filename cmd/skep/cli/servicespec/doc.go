// Package servicespec turns the flags of `service create` and `service update` into the spec of a service.
//
// It is not the service's validation: that is the managers'. It only reads what was typed, in Docker's words, and leaves
// unset what was not typed, so that the managers fill in their defaults.
//
//	Create: flags, IMAGE, ARG... -> spec
//	Update: flags, present spec -> changed copy of it
//
// Invariants:
//
//	I1  An update changes only what a flag names.
//	I2  Apply is pure but for Resolve, so that it may run again on a newer version of the service.
//
// Concurrency: flags belong to one command line.
//
// Errors: faults of the kind Invalid, and those of Resolve.
package servicespec
