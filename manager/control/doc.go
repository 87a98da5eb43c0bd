// Package control serves the API with which people and their tools change and read the cluster.
//
// It writes wishes and nothing else: what follows from a wish (tasks, placements, updates) is the work of the loops, which
// watch the store. It does not authenticate or authorize, and it does not forward: the interceptors before it do, so every
// call that gets here may happen, and the ones that need the leader are on the leader.
//
// # Life of a write
//
//	request --> request id --> fill defaults --> validate --> resolve names --> store.Update --> answer
//	             (retry:          (server's,       (all        (secrets,          (again on      (without
//	              same answer)     spelt out)       problems)    image digest)      conflict)      secrets)
//
// Everything from "fill defaults" on happens inside the transaction, on the snapshot that it commits against.
//
// # Invariants
//
//   - C1: no answer carries a secret's data, a CA key, a join token, an unlock key or a backup key, except the methods
//     that are for it.
//   - C2: a call that is repeated with the same request id changes nothing more, and answers alike. The id of an object that
//     a call creates is derived from its request id. Of a join grant that can't be, so a repetition replaces the first one.
//   - C3: a stored spec is complete: each field that has a default is spelt out, so that its meaning never changes later.
//   - C4: a stored service names its image by digest, and its secrets by id and name.
//   - C5: the managers that stay after a demotion or a removal can have a quorum.
//
// # Reading
//
// Reads are linearizable: they follow a [store.Store.Barrier]. WatchService waits for one barrier, so that it knows what
// was acknowledged before it was called, and then follows the local store.
//
// # Errors
//
// All errors are faults (package fault) whose texts are Docker's where Docker has one. An Invalid one lists all problems of
// a spec, each with the path of its field.
//
// # Concurrency
//
// A Server is immutable and safe for concurrent use.
package control
