// Package scheduler chooses a node for each task that waits for one.
//
// It never moves a task, and it does not stop one: what happens to tasks of lost nodes is the orchestrators' affair.
//
//	PENDING, live --filter--> nodes that can run it --rank--> the best one: ASSIGNED
//	                    |
//	                    +--> none: stays PENDING, and its status says why; tried again when a node or a task changes
//
// # Filter
//
// In this order; a node is counted under the first that it does not pass, and the counts become the reason:
//
//	volumes       it has those that the slot's last task had "volume data is on node …"
//	available     it is READY and ACTIVE                     "… not available for new tasks"
//	resources     its resources, less all reservations       "insufficient resources on …"
//	constraints   package constraint                         "scheduling constraints not satisfied on …"
//	platform      one that the pinned image is known to have "unsupported platform on …"
//	ports         the published ports are free               "host-mode port already in use on …"
//	max replicas  fewer tasks of the service than that       "max replicas per node limit exceed"
//
// For a task that is bound to a node there is that one node.
//
// Reservations and ports are taken from the assignment until the task has ended, whatever its desired state. Which platforms an
// image has is learnt from the nodes that hold it; while no node does, every platform will do.
//
// Each is a small type that implements filter, in a file of its own. Those that depend on nodes alone are asked once for all tasks
// that want the same, until a node changes.
//
// # Rank
//
// A service may be spread over the values of labels: then the next task goes to the value with the fewest live tasks of the service,
// within it to the one of the next label, and so on. Nodes without the label are one group more. Among the nodes of a group, scorers
// decide, an earlier one first:
//
//	spread    the fewest live tasks of the service, then the fewest live tasks, then the lowest id
//	binpack   the largest part of CPUs or memory reserved with the task, then the most live tasks, then the lowest id
//
// Nodes on which the same version of the service failed 5 times within 5 minutes come after all others, and so do groups of nothing
// else. A scorer is a small type that implements scorer.
//
// # Why
//
// Explain asks all filters about all nodes for one task, what would have each of them accept the node, and takes the smallest sum of such
// remedies: a label first, then availability, a number of the spec, a condition that is given up, and work on a machine last.
// Explainer does it for a snapshot of the store, on any manager.
//
// # Core and loop
//
// Core is a view of the cluster that changes in deltas: an event costs its own size, and a decision the number of nodes plus
// the number of tasks of its service that wait. It takes its own decisions as facts at once. The Loop commits them in
// batches, each only if the task and the node are still as the core saw them; what was dropped is fed back.
//
// Invariant I13: the reservations on a node are within its resources, and all filters hold when a task is assigned.
//
// A Core is for one goroutine. The Loop is one goroutine and runs on the leader only; Run returns nil when its context ends,
// and an error that matches store.ErrNotLeader when leadership is lost.
package scheduler
