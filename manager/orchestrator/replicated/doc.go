// Package replicated keeps a service at its number of slots, each of them with a task on a node that can run it.
//
// It is not about tasks that end (restart), old specs (update) or history (reaper).
//
//	service   slot                                    effect
//	-------   ----                                    ------
//	removed   any                                     all its tasks: desired REMOVE
//	exists    too few                                 a task in the lowest free slot numbers
//	exists    too many                                all tasks of the slots that can best be spared: desired REMOVE
//	exists    its live task's node was removed        that task: desired REMOVE, and a new task in the slot
//	exists    its live task's node is down            that task: desired SHUTDOWN, and a new task in the slot
//	exists    its live task's node is drained         the same; the new one starts once the old one has stopped
//	exists    its live task's node is unfit           the same: constraints or reservations hold there no more (View.Unfit)
//
// Running tasks leave drained nodes a few at a time: as many as the service's update config replaces at once (parallelism), the next ones
// when those run elsewhere and its delay is over. One that does not run elsewhere within its deadline holds up nobody any more, so that
// a drain comes to its end. Where a node is down nothing is held up, and when the drain's timeout is over, nothing is any more.
//
// Under start-first (update order; without ports and volumes that keep the slot on the node) the next task is ready before the one on the drained
// node stops:
//
//	runs on drained node -- its turn --> and the next one elsewhere, not ready yet -- ready --> the old one: desired SHUTDOWN
//	       ^                                 |          |
//	       +-- restart gave it up: it stays -+          +-- the node is active again --> the new one: desired SHUTDOWN
//
// A task without a successor stays until the drain's timeout. While an update goes on, the next task of one with an old spec is the update's.
//
// A slot whose tasks have all ended and that restart left alone still counts as one: it has had its tries. A node that is
// only UNKNOWN, or paused, keeps its tasks. The restart policy does not matter here: it speaks of tasks that end, and a lost
// node is no end that the task chose.
//
// Slots that can best be spared are those without a running task; then those on the nodes with the most tasks of the
// service; then the highest numbers.
//
// Invariant: I5 (two running tasks in a slot only under start-first). A new task in a slot whose former task may still run has desired state READY; restart raises it.
package replicated
