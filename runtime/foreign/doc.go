// Package foreign creates containers by another OCI runtime, such as runc or crun, for the supervisor: the way out where
// Skep's own launcher does not do, and something to compare it with.
//
// Only create, start and delete are the other runtime's. The container's process becomes the supervisor's child, which
// watches, signals and reaps it, and runs further processes in it, as it does with its own.
//
//	DIR/ID               a file system in memory; all below it goes in one unmount
//	DIR/ID/config.json   the request's configuration, with what the supervisor's launcher would have added to it
//	DIR/ID/rootfs        the layers, mounted through the container's ids
//	DIR/ID/mounts/N      a clone of the source of a bind mount, with the container's ids where it asks for them
//	DIR/ID/memory/N      a file system in memory with the container's files
//
// Invariants:
//
//	I1  Nothing is ever removed recursively: what is mounted here belongs to others.
//	I2  Only the host's root and the container's root can reach what is below DIR/ID.
//	I3  A failed Create leaves nothing behind.
//	I4  A container whose plan has a seccomp filter gets one.
//
// A Runtime is safe for concurrent use.
package foreign
