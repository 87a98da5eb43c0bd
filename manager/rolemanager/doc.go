// Package rolemanager makes the role of each node what its spec wants, and keeps the Raft group to nodes that are managers.
//
// It does not change the group's size upwards: a promoted node gets a manager's certificate, and then joins by itself. It
// does not judge whether a demotion is wise: the control API refuses those that are not, before they are stored.
//
// # A node's way
//
//	         desired MANAGER: role becomes MANAGER             the node renews its certificate and joins
//	WORKER ----------------------------------------> MANAGER ----------------------------------------> member
//	  ^                                                 ^                                                  |
//	  |  role becomes WORKER                            |  removed from the group                          | desired WORKER, or
//	  +-------------------------------------------------+--------------------------------------------------+ the node was removed;
//	                                                                                      the leader first lets another lead
//
// # Invariants
//
//   - R1: a member keeps the role MANAGER until it is no member any more: a worker never votes.
//   - R2: the leader never removes itself: it transfers leadership, and the next leader removes it.
//   - R3: a member is removed only when the others can have a quorum; otherwise it waits for them.
//   - R4: one member is removed at a time, and what to do next is decided from what is then.
//
// # Concurrency
//
// [Step] is pure. Run is the only goroutine, on the leader. Everything that it does can be repeated: the next leader goes on
// from the store and the group alone.
package rolemanager
