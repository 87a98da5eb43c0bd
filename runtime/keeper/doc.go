// Package keeper outlives the container supervisor: a small process that is the supervisor's parent and inherits its
// containers when it dies, so that nothing is lost of what happens until there is another one.
//
// It is not a supervisor: it starts no container, kills none, writes no file and decides nothing. It starts supervisors
// when it is asked to, and remembers for each container, by its name, how its first process ended, and descriptors that
// would be gone with the supervisor: a pipe that nobody holds loses what is in it, and a terminal hangs up.
//
//	daemon ──Start──> keeper ──fork──> supervisor ──fork──> containers
//	                    ^                 │ Hold, Forget       │
//	                    │<────────────────┘                    │
//	                    │   the supervisor dies                │
//	                    └<── the kernel gives it the children ─┘   (PR_SET_CHILD_SUBREAPER, zombies too)
//
//	daemon ──Start──> keeper ──fork──> next supervisor ──Ask──> how a container ended, and its descriptors
//
// A container is held from before its program runs until its exit is in the supervisor's journal and its output in the
// log.
//
// Invariants:
//
//	I1  The end of a process that was held is remembered until Forget. A supervisor that has seen an end itself waits for
//	    the process (wait4) only after it is in the journal, so one of the two always knows.
//	I2  Whatever else loses its parent here is waited for, and forgotten.
//	I3  What is held is bounded: maxHeld containers with maxFiles descriptors each.
//	I4  Only root may talk to it.
//	I5  It ends when nobody is connected, it holds nothing and has no children.
//	I6  Its end ends nothing else. The supervisor works without it, and says what it could not learn.
//
// The protocol is on a unix socket, Socket(root), of type SOCK_SEQPACKET: each message is one packet of JSON, with
// descriptors (SCM_RIGHTS). Start and Ask are answered, Hold, Forget and Settle are not. A keeper runs for as long as there
// are containers, and talks to supervisors of later versions: they may add fields, which it ignores, and messages that are
// answered, which it refuses. It is not upgraded; see docs/adr/0030.
//
// Concurrency: one goroutine has all that is kept; one for each connection, of which there are a handful, reads. A Client
// may be used by several goroutines.
//
// Sources: prctl(2), unix(7); sd_pid_notify_with_fds(3) for what holding descriptors for another is good for.
package keeper
