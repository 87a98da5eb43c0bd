// Package store keeps the state of a cluster: typed objects, in memory on every manager, replicated by Raft, sealed on disk.
//
// It does not know what objects mean. It never changes one by itself, beside the meta that it owns (version, times) and the audit log.
//
// # Reading
//
// View gives a snapshot that nobody can change, at the cost of two pointers. It shows the local state, which may be behind
// the leader's; after Barrier it is linearizable, on any manager. Watch gives a snapshot and then exactly the changes after
// it, in order, and can be resumed from an index within a bounded window (ErrResync says: start anew). Nothing polls.
// Objects are shared by all readers: clone one (proto.CloneOf) before changing it.
//
// # Writing
//
// Update runs a closure on a snapshot and proposes the changes that it made, each with the version that it was made from:
//
//	            fn(tx)            propose             commit             apply, on every manager
//	snapshot --------> changes ----------> log entry --------> majority --------+
//	   ^               + expected          (shared with                         | versions hold: applied whole,
//	   |                 versions           concurrent writes)                  |   Update returns nil
//	   +------------------------------------------------------------------------+ one moved: refused whole,
//	                       run again on a newer snapshot                            everywhere alike
//
// So no lock is held while the log is written: proposals pipeline. A request id makes a retry safe: the state machine
// remembers the last requests that it applied.
//
// # The audit log
//
// A transaction may carry events for the audit log (Tx.Audit, WithRider): encoded, the store does not look into them. When it is applied,
// the state machine gives each the next number, chains it to the one before by a hash, and appends it to the last api.AuditSegment. So
// a change and its entry are there both or not at all, and nobody waits for the head of the chain. Segments are objects like others
// for readers and watchers; no transaction may change one, only the oldest may go. See package chain, and docs/adr/0019-audit-log.md.
//
// # Life of a manager's store
//
//	first manager: Bootstrap ---+                      ctx ends (nil)
//	                            +--> Open ----> Run ---> disk fails, log damaged (error)
//	the others: Join at the     |     ^  \               removed from the group (ErrRemoved)
//	leader, Prepare ------------+     |   +-- *wal.CorruptError, wal.ErrFormat, seal.ErrWrongKey
//	                                  +------ restart: log and snapshot are replayed
//
//	member:  (AddMember) learner --caught up--> voter --RemoveMember--> refused for ever
//
// A manager that lost its disk joins again, as another member. Its former self keeps its vote until the new one has caught up
// and takes it over, in one joint change: the group never has fewer voters. When a majority is gone for ever, ForceNewCluster makes
// a stopped manager the only one; when all are gone, BootstrapFrom begins with the state in a backup. NewLocal is a store without log or peers, for tests and scratch copies.
//
// # Parts
//
//	Store      reading, writing, watching              machine   the replicated state: pure, deterministic
//	cluster    the shell that feeds raftcore            hub       the last changes, for watchers
//	raftcore   what a member does next: pure            wal       the sealed log and snapshots on disk
//	seal       keys and envelopes                       vfs       the seam to the file system
//	object     kinds, indexes, ids                      storetest stores for the tests of others
//	tables     objects and indexes, copied on write
//
// The whole of it runs in a deterministic simulation under faults, see e2e/sim and Player.
//
// # Invariants
//
// They are those of the reliability programme, cited by number in code and tests:
//   - I1: View after Barrier is linearizable, per object.
//   - I2: an acknowledged write is present after any faults that leave a majority of managers their disks.
//   - I3: managers that applied the same index have the same StateHash.
//   - I4: a watcher sees exactly the committed changes after its start, in order.
//   - I16: the entries of the audit log are one chain, and each event of an applied transaction is in it once.
//
// # Concurrency
//
// All methods of Store are safe for concurrent use. Transactions and Watchers are for one goroutine at a time; a ReadTx may
// be kept as long as one likes, at the cost of the memory of the objects that it shows.
//
// # Errors
//
// ErrNotFound, ErrExists, ErrNameConflict, ErrConflict, ErrInvalid and *LimitError come from transactions; *NotLeaderError,
// *DuplicateError and ErrBusy from Update; ErrResync from Watchers; ErrStopped once Run has ended.
//
// # Limits
//
// An object has at most 1 MiB, an entry of the log, and so a transaction, 4 MiB. A *LimitError says which.
package store
