// Package taskstate is the state machine of a task: which state may follow which, who writes it, and what it means for the
// task's slot. It holds no state and does no I/O; every loop that touches tasks asks it instead of comparing numbers.
//
// A task is one try of one slot of a service. It is never restarted and never moved: it is replaced by another task of the
// same slot. Two values describe it. The observed state, task.status.state, only goes up:
//
//	           allocator    scheduler     agent                                                     agent
//	NEW ------> PENDING ----> ASSIGNED -----> ACCEPTED -> PREPARING -> READY -> STARTING -> RUNNING -----> COMPLETE (exit 0)
//	 |            |              |               |            |          |         |          |-------> FAILED   (any other end)
//	 |            |              |               +------------+----------+---------+----------+-------> SHUTDOWN (was told to)
//	 |            |              |               +------------+----------+----> REJECTED (could not be prepared)
//	 |            |              +---- its node is gone, or down for a day: ----> ORPHANED  (written by the reaper)
//	 +------------+---- desired state above RUNNING before it had a node: deleted, nobody needs to stop it
//
// An agent may skip states on the way up. The desired state, task.desired_state, only goes up too, and only managers write it:
//
//	READY   prepare, but wait: the delay of a restart has not passed, or the task before it in the slot still stops
//	RUNNING run
//	SHUTDOWN stop; the task stays as history of its slot
//	REMOVE  stop and be forgotten: the slot is gone
//
// A task whose desired state is at most RUNNING is live: it is what its slot is about. A task whose observed state is above
// RUNNING has ended. Whoever ends a live task whose slot is still wanted creates the replacement in the same transaction, so
// that no slot is ever empty by accident, and no two loops fill it twice.
//
// Invariants: I6 (a state never goes down; agents write observed states, managers desired ones), and with [MayOverlap] I5
// (a slot has one running task, unless an update starts the new one first).
//
// Everything here is a pure function and safe for concurrent use. Arguments are never changed.
package taskstate
