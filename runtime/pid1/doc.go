// Package pid1 has the program that is process 1 of a container whose service asks for an init.
//
// It is a few hundred bytes of machine code without a runtime, a library or a heap: PID 1 of a thousand containers costs next to
// nothing, and there is nothing of the host's in it that a container could get at. It is written in the assembly files of this
// package, and Program wraps the assembled code into an ELF executable in memory.
//
//	argv:  init PATH... -- NAME ARG...
//
//	block all signals ── fork ──┬─ child: own process group, in the foreground of its terminal if it has one;
//	                            │         unblock, execve of the first PATH that there is, with NAME ARG...
//	                            │         none: say so on standard error, exit 127 (not found) or 126 (can't be run)
//	                            └─ parent: wait for a signal ── SIGCHLD: reap all that ended; the child: exit as it did
//	                                            ↑                SIGTTIN, SIGTTOU: nothing
//	                                            └──────────────  another: pass it on to the child
//
// Invariants:
//
//	I1  The exit status is the child's, or 128 and the signal that ended it.
//	I2  Every process that loses its parent in the container is reaped.
//	I3  A signal that is sent to process 1 reaches the child; all are blocked, so the kernel keeps those, too, that it would not
//	    deliver to a process 1 without a handler.
//
// Program is safe for concurrent use.
//
// Sources: pid_namespaces(7), sigwaitinfo(2), elf(5).
package pid1
