// Package sealed makes a program run from a copy of itself in memory that nobody can change.
//
// A process that starts containers is, for a moment, a process inside a container; what runs there can open
// /proc/PID/exe, hold it, and write to the host's binary when nothing runs it any more (CVE-2019-5736). The copy is a
// memfd sealed against every change, so there is nothing to write to.
//
//	program on disk ──Exec──> copy to memfd, seal, execve ──> the same program, from the memfd
//
// Invariants:
//
//	I1  After Exec has returned nil, /proc/self/exe is a memfd with all seals against writing set.
//	I2  Arguments and environment are the same before and after.
//
// Source: memfd_create(2), fcntl(2) "File Sealing".
package sealed
