// Package raftcore decides what a Raft member does next: inputs in, effects out.
//
// It is a value around etcd's RawNode, without goroutines, clocks or I/O, so that one goroutine can simulate a cluster of
// them. Its only randomness is crypto/rand for election time-outs, which testing/cryptotest can seed. It does not know what
// entries mean, and it does not store them: it reads them back from the raft.Storage that its owner keeps.
//
//	                        +-----------------------------------------+
//	Tick, Receive, Propose, |                                         | Effects.Send    -> network, at once
//	Configure, Read,        |                  Core                   | Effects.Appends -> disk, in order
//	Transfer, Unreachable   |                                         | Effects.Applies -> state machine, in order
//	   -------------------> |                                         | Effects.Reads   -> readers
//	                        +-----------------------------------------+
//	                             ^ Appended                    ^ Applied
//	                             +-- when durable, in order    +-- when applied, in order
//
// # Rules for the owner
//
//  1. Append.Send may leave only when the append, and all before it, are durable: among them are votes, and
//     acknowledgements of entries. Effects.Send may leave at once. (I2)
//  2. Before Appended is stepped, the entries must also be visible in the raft.Storage; for a snapshot, the state machine
//     must have it.
//  3. Appends are done in order, and so are applies; a later one may begin before an earlier one was stepped as done.
//  4. Only the leader proposes. Proposals are never forwarded, because a network that duplicates one would apply it twice.
//  5. After ErrBroken the core is dead: nothing that it says can be trusted, and the manager must stop.
//
// # What Core makes of etcd's library
//
// Pre-vote, check-quorum, no forwarding of proposals, ReadIndex that asks a majority, asynchronous storage writes (a leader
// sends entries while its own disk writes them), stepping down when removed. A tick is meant to be 100 ms: elections start
// after 1 to 2 s without a leader, and not at random where it is known that the leader is gone, see succession.
//
// Messages from peers are checked before the library sees them, because it panics on some that cannot happen; what passes
// and still makes it panic ends in ErrBroken.
//
// Sources: Ongaro's dissertation "Consensus: bridging theory and practice", sections 3, 4.2.1 (learners), 6.4 (reads), 9.6
// (pre-vote), 10.2.1 (writing in parallel).
package raftcore
