// Package update replaces tasks that have an old spec, a few slots at a time, and stops or goes back when too many new ones fail.
//
// It does not start jobs anew (job), restart tasks (restart), nor judge whether they are healthy or ready: nodes say that a task is
// RUNNING once it is healthy, and that it is ready (taskstate.Ready), which without a readiness check is the same.
//
// A slot's place in an update follows from its kept tasks, by spec version:
//
//	+-------+  budget left   +--------+  task with the present   +---------+
//	| dirty |--------------->| moving |  spec ready, or it       | settled |
//	+-------+                +--------+--has ended, late or well->+---------+
//	no task with the          has a live one,      ^
//	present spec              not ready            | restart makes another
//	                              |           +--------+
//	                              +---------->| failed |
//	     it ended by itself within the        +--------+
//	     monitoring time, or is not ready within the deadline
//
// A task that loses its readiness makes its slot move again, and its deadline begins anew; it is never told to end for that. The monitoring
// time begins when it is ready.
//
// The budget is the update's parallelism (0 is without limit), less the slots that move, less those that settled within the
// delay. A newer spec makes every slot dirty again, whatever it was: that is all there is to superseding an update.
//
// A slot has failed with the first of its tasks that did; what restart makes of it afterwards changes nothing. Failures from before
// the update was started or resumed don't count, nor the end of a task that was told to end. When more than the allowed share of all
// slots have failed, the failure action is taken:
//
//	            +-- dirty slots --> UPDATING -- none dirty, moving, or settled for less than the monitoring time --> COMPLETED
//	            |                      |  ^
//	            |     too many failed: |  | resumed by a person, or a new spec
//	            |                      +--+--> PAUSED
//	            |                      |
//	            |                      +-- action rollback: the previous spec is in force again --> ROLLBACK_STARTED
//	            |                                                                                      |
//	            |                     action continue: they count as done                              +--> ROLLBACK_COMPLETED
//	no status --+                                                                                      +--> ROLLBACK_PAUSED
//
// A rollback follows the service's rollback config, and never rolls back itself. Tasks of the spec that it restored which still run are
// adopted: they get the new spec version instead of a successor. Where what the previous spec needs is gone, the update is paused.
//
// A slot that is bound to a node which is down has no place: nothing can be done for it, and nobody waits for it.
//
// stop-first: one transaction tells the old tasks to stop and makes the new one, which waits for them (restart starts it).
// start-first: the new task runs beside the old ones, which are told to stop once it is ready. A service that publishes
// ports on its nodes is always updated stop-first: the new task could wait for ever for a port that the old one holds.
//
// Invariants: I5 (two running tasks in a slot only start-first), I14 (parallelism, delay, order and failure action are kept; the state
// is the store's, so a change of leaders neither repeats nor skips a slot, nor forgets a failure; a history limit that deletes a
// slot's first failure while it goes on failing late forgets that one).
//
// The states, their messages and the defaults are those of Docker Swarm (SwarmKit's manager/orchestrator/update), which counts in
// memory, and has no deadline.
package update
