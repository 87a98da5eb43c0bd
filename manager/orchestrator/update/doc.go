// Package update replaces tasks that have an old spec, a few slots at a time.
//
// It does not watch whether new tasks stay healthy, and never goes back to an old spec by itself.
//
// A slot's place in an update follows from its kept tasks, by spec version:
//
//	+-------+  budget left   +--------+  task with the present   +---------+
//	| dirty |--------------->| moving |  spec RUNNING, or it     | settled |
//	+-------+                +--------+--ended with exit code 0->+---------+
//	no task with the          has one, not         ^
//	present spec              RUNNING yet          | restart makes another
//	                              |           +--------+
//	                              +---------->| failed |  its tries are used up: the slot stays moving for the budget,
//	                                          +--------+  so that a bad spec takes down no more slots than that
//
// The budget is the update's parallelism (0 is without limit), less the slots that move, less those that settled within the
// delay. A newer spec makes every slot dirty again, whatever it was: that is all there is to superseding an update.
//
// stop-first: one transaction tells the old tasks to stop and makes the new one, which waits for them (restart starts it).
// start-first: the new task runs beside the old ones, which are told to stop once it is RUNNING. A service that publishes
// ports on its nodes is always updated stop-first: the new task could wait for ever for a port that the old one holds.
//
// The service's update status becomes UPDATING with the first dirty slot and COMPLETED when all have settled. Services that
// were never updated have none.
//
// Invariants: I5 (two running tasks in a slot only start-first), I14 (parallelism, delay and order are kept; the state is the
// store's, so a change of leaders neither repeats nor skips a slot).
package update
