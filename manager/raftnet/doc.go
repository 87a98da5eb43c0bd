// Package raftnet carries Raft messages between managers, over gRPC streams, and lets managers join and leave the group.
//
// It does not authenticate: whoever dials and serves brings credentials, and says who the caller of an RPC is. It does not
// interpret messages; package store and its core check what they are given.
//
// # Sending
//
// A Transport has one goroutine per member, with a bounded queue:
//
//	        Send          stream up                 error
//	queue -------> idle ------------> streaming ------------+
//	                ^  \______ back-off, queue dropped _____/  and the store is told: Unreachable
//
// Messages that do not fit, or that wait while the member can't be reached, are dropped: raft sends what matters again.
// An append without entries says no more than what is committed. It waits for about a millisecond, and is dropped when another append
// follows that says so, too.
//
// A snapshot goes its own way, over a connection of its own, so that heartbeats pass it; one at a time per member, and all together
// no faster than TransportConfig.SnapshotRate:
//
//	sender                                        receiver
//	  index, term, size, SHA-256  -------------->   what it holds of these data: one partial, in memory, for 5 minutes
//	  the rest, in chunks         <--- offset ---
//	                              -------------->   whole: checked, delivered
//
// A stream that breaks is taken up again while there is progress, and then again whenever raft sends the snapshot again. To a manager
// of a version without ResumeSnapshot it goes in one piece, by SendSnapshot.
//
// # Joining
//
//	new manager                          leader
//	  Server without store  <--- Probe ---  Join(address): does it answer there, as that node, of this cluster?
//	  store.Prepare, Open   <-- answer ---  a learner from now on
//	  Server.Attach         <-- Send -----  log or snapshot; a voter by itself once it has caught up
//
// A member that moved, or whose program is another one, tells the leader by UpdateMember, which checks the address likewise. Who was
// removed learns it there, too.
//
// # Invariants
//
//   - A message is delivered only as from the member whose node id the caller's certificate has.
//   - A member that was removed is refused for ever, and learns that it was removed.
//   - A manager is added, and moved, only at an address where it answers to the leader.
//   - What a receiver adds to a partial snapshot is of equal data, and the whole is checked before it is delivered.
//
// # Concurrency
//
// Server is safe for concurrent use. Transport is used as store.Transport says.
//
// # Errors
//
// Those of package fault, as gRPC statuses: NotLeader with the leader's address, PermissionDenied for removed members and for
// callers that speak for others, Precondition when an address does not answer or the quorum would be lost, Unavailable while
// there is no store yet.
package raftnet
