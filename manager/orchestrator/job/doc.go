// Package job has the tasks of a job run until each of its slots has ended well once.
//
// It is not about tasks that end (restart) or history (reaper), nor about services that are to run for ever.
//
// A job runs again with each version of its spec that makes other tasks: an iteration. A slot's place in the present one follows
// from its kept tasks of that version:
//
//	                      +---- restart makes another ----+
//	                      v                               |
//	free --a task--> running --ended otherwise than well--+--the policy allows no more--> failed
//	                      |
//	                      +--ended well--> done
//
// A replicated job uses as many slots as it is to complete; done, running and failed ones count. No more slots are busy at once than it
// may have tasks at once, where a slot is busy too while a task that was told to stop may still run there. When there are too many,
// because fewer are wanted, failed slots are forgotten first, then running ones, never those that are done.
//
// A global job has a slot for each node that fits, as package global has; a node that fits no more loses what runs there, with its tries
// so far, and keeps what is done. Numbers of nodes that were removed are given to others.
//
// Live tasks of an older iteration are told to stop, and so are those in a slot that is done: a task that was given up with its node, and
// is heard of again, may turn out to have ended well. Tasks of lost and drained nodes are replaced.
//
// Invariants: I5. A job of n completes exactly n slots of an iteration, once each, whoever leads: the store says which are done, restart
// follows nothing that ended well, and the reaper keeps it. Only a node that nobody hears may complete a task that was started elsewhere,
// too, and a task that is told to go with its slot counts for nothing, though it may end well before it hears so.
package job
