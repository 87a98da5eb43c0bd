// Package session keeps this node in touch with a manager: it registers, sends heartbeats, takes in assignments, and reports
// what became of tasks.
//
// It decides nothing about tasks: what it hears goes to a [Handler].
//
//	         +------------------------ any part fails ------------------------+
//	         v                                                                |
//	choose a manager --connect, register--> session: stream of node, managers, root
//	  ^      |                                |- heartbeats, a little before each period ends
//	  |      | no answer, refused             |- assignments: everything, then changes; a gap ends the session
//	  |      v                                |- statuses: newest per task, in batches, until acknowledged
//	  +--- next manager at once;              +- description, when it changes
//	       after a whole round a pause of 100 ms, doubled up to 8 s
//
// Invariants:
//
//	S1  A status that was reported is sent until a manager acknowledged it or a newer one of the same task took its place.
//	S2  Assignments reach the Handler in the manager's order with none left out, or not at all; what comes in parts, as one.
//	S3  At most one session exists at a time, and all of its goroutines have ended before the next begins.
//	S4  A manager that does not have what this node saw of the audit log, or dropped it as too old, gets no session: its data were rolled
//	    back. Running tasks go on. What went back on purpose says so (AuditHead.RecoveredAt), and is taken, loudly.
//	S5  A session waits for no disk: the files are written beside it, the last state of them before Run returns.
//	Q5  Retries decay: a manager that accepts sessions and drops them is not asked more often than one that refuses.
//
// Concurrency: a Client is safe for concurrent use; Run is called once and returns when all its goroutines have ended. The
// decisions (remotes, reporter, sequence, witness) are cores without clocks, goroutines and randomness.
//
// Errors: a [RollbackError] names a manager that was rolled back. [Client.Locate] and [Client.IssueWorkloads] return errors of the kind
// fault.Unavailable while there is no session.
//
// The managers last heard of are kept in managers.json (mode 0600), so that a restarted daemon finds them all:
// {"version":1,"managers":["host:port",...]}.
//
// The last head that a manager showed of the audit log is kept in audit.json (mode 0600):
// {"version":1,"seen":{"sequence":N,"hash":"base64"},"recovered":{"before":{...},"after":{...}}}.
//
// The protocol is in proto/skep/v1/dispatcher.proto; the constants are those of Docker Swarm's agent.
package session
