// Package security says what a container's spec takes away from the isolation that every container has by default, and whether a
// seccomp profile is one.
//
// It is pure: no store, no clock, no I/O. Who admits specs and who shows them to people asks it the same questions and gets
// the same answers.
//
//	ContainerSpec ──Weaknesses──> each option that lets the process do more than the default, and what that means
//	profile ──CheckProfile──> nil, or the line, the column and the field of the first mistake
//
// The default profile that others are compared with is Docker's, as data. What a profile becomes on a node, a program for
// the kernel, is the business of the runtime, which refuses again what it can't compile.
//
// # Errors
//
// A *ProfileError names the place of a mistake in a profile.
package security
