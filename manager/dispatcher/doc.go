// Package dispatcher is where agents meet managers: they register, say that they live, get their assignments, and report
// what became of their tasks. Every manager serves it from its own store.
//
// It decides nothing about tasks. It knows what an agent is to be told, and what an agent may say.
//
//	agent ---Session-------> sessions: id, heartbeat ----+
//	      ---Heartbeat-----> "heard"                     |        Relay          leader
//	      ---Description---> description, waits ---------+--> outbox ------> absorb: one transaction for many agents
//	      ---Status--------> statuses, waits ------------+   (batches)            |    liveness: last heard, per node
//	      <--Session-------- node, managers, root, period --+                     v       | three periods missed
//	      <--Assignments---- everything, then differences --+-- local store <-- store <---+ DOWN
//
// # Sessions
//
// A session belongs to one manager, and ends with its stream, with a new registration of the node at the same manager, with
// three missed heartbeats, or with the removal of the node. Every RPC that names another session id is refused as invalid,
// so that the agent registers again. A node may register 3 times within 8 seconds. The leader learns of a registration when the node uses the
// session, which agents do at once, unless they refuse the manager for what it shows of the audit log.
//
// # Durability
//
// A status or a description is acknowledged to the agent once the leader has committed it, and not before. Until then the
// outbox keeps it and tries again, with whoever leads. Registrations and heartbeats are not waited for.
//
// # Liveness
//
// The leader alone says which node is READY or DOWN. It learns from all managers, itself included, how long ago they heard
// from each agent. A new leader gives every READY node two periods more than the usual three, and so does one that was itself
// stopped for longer than a period. A new period counts at once, from the change on, with the same two more. A manager that
// had no answer from a leader for three quarters of a period refuses heartbeats, so that its agents go elsewhere before they are
// thought dead; also when it knows of no leader, for it may be the only one that was left behind. It waits for two periods when Raft hears
// the leader, which only takes long.
//
// # The audit log
//
// A node says up to which entry it saw the audit log; the manager shows the hash of that entry and its head, with the session's first message
// and with each heartbeat. One that is behind catches up before it begins a session. What the node makes of it is its own.
//
// # Invariants
//
//   - I6: a task's observed state never goes down, and only the node that the task is assigned to writes it.
//   - I7: a node gets only its own tasks, and a secret or config only while a task that needs it may run there; it is told to
//     forget it when the last such task ends. To a node a config is a secret: both are files in memory.
//   - I9: a removed node's session ends when its removal arrives here, and it cannot register.
//
// # Concurrency
//
// A Dispatcher is safe for concurrent use. Run is called once and serves until its context ends; Lead is called by the leader,
// for as long as it leads. The cores (sessions, outbox, assignment, liveness) are values without clocks or goroutines,
// guarded by Dispatcher.mu.
//
// # Errors
//
// Invalid "session invalid": register again. Unavailable: try again, here or at another manager. PermissionDenied: a task of
// another node, or a removed node.
package dispatcher
