// Package global gives a global service one task on every node that fits.
//
// It is not about tasks that end (restart), old specs (update) or history (reaper), nor about services of other modes.
//
// A slot belongs to a node: all its tasks are bound to that node, and the number stays with it. Package eligible says which nodes
// keep their tasks, and which of those take one:
//
//	node                                           effect
//	----                                           ------
//	takes tasks, and has no slot                   a task, in the slot whose task still stops there, else in the lowest one without tasks
//	does not keep them: drained, gone, or          all tasks of its slot: desired REMOVE
//	without what constraints ask for
//	paused, or lacks the platform                  none: what runs there stays
//	down                                           none: its task is still wanted, and runs on if only the way to the node is broken
//
// A slot whose tasks have all ended and that restart left alone still counts: it has had its tries. It is forgotten with the rest
// when its node fits no more, so a node that is drained and made active again starts anew.
//
// Invariant: I5. A new task in a slot whose former task may still run has desired state READY; restart raises it.
package global
