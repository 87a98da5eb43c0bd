// Package orchestrator is what the loops that decide over tasks share: the view of a service that their cores get, the
// effects that cores ask for, and the Loop that feeds the one and commits the other.
//
// It decides nothing. The cores are in the packages below, one for each question about a service's tasks, and none of them
// knows the others; what one did, the next sees in the store:
//
//	replicated  how many slots are there?            creates first tasks, removes slots, replaces tasks of lost or drained nodes
//	global      which nodes have a slot?             creates a task on each node that fits, removes those of nodes that don't
//	job         which slots have not ended well?     creates their tasks, as many at once as may be; stops those of old iterations
//	restart     what follows a task that ended?      replaces tasks by policy, starts tasks that wait
//	update      which slots have an old spec?        replaces tasks a few at a time
//	reaper      what may be forgotten?               deletes tasks, declares orphans
//
// # The rule that keeps them apart
//
// A slot without a kept task (desired state below REMOVE) is filled by the core of the service's mode, which never changes:
// replicated, global or job, and by nobody else; slots of a service that is gone are removed by replicated. In every other slot a
// task is replaced only by a transaction that also changes a task that is there, or, for update and job, in a slot whose tasks all
// ended. So two loops that want the same slot conflict in the store, and the slower one decides anew on what it then sees.
//
// # A core
//
// A core is a pure function of the time and a View. It keeps nothing: all that it knows is in the store, so the next leader
// goes on where the last one stopped, and running it twice changes nothing. It returns effects, each applied whole or not at
// all, and the time at which it wants to be asked again although nothing changed.
//
// # The loop
//
//	store.Watch --changes--> dirty keys --core on a snapshot--> keys with effects --core inside store.Update--> commit
//	    ^                        ^ timers of cores                                                                |
//	    +-----------------------------------------------------------------------------------------------------+
//
// A key is a service or one slot of it. One goroutine does all of that; a Loop runs on the leader only. Run returns nil when
// its context ends, and an error that matches store.ErrNotLeader when leadership is lost: start it anew with the next one.
//
// # A rehearsal
//
// A [Rehearsal] has the same cores decide about a copy of a service's tasks, to say what would become of them. It writes nothing.
package orchestrator
