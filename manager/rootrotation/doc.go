// Package rootrotation brings a rotation of the root certificate to its end: it has every node renew its certificate by the root to be,
// and then drops the root of before.
//
// It does not begin a rotation (manager/control), signs nothing (package ca, by manager/caserver), and does not talk to nodes: what it
// asks of a node stands in the node's record, and goes to it by manager/dispatcher, as do the roots that nodes trust.
//
//	  control: a cross-signed root to be is in the cluster object
//	     |
//	     v                      up to maxAsked at once                       the node says so of itself
//	   ASKING: nodes that are READY ---record: renewal---> node renews ---record: tls---> done
//	     |  ^                                                |
//	     |  +---- another rotation, or an abortion,          | nothing for askAgain: others get its place, and it is asked again
//	     |        takes the place of this one: other target  +----------------------------------------------------------------+
//	     v
//	all nodes are done -----> FINISHED, in one write: the root to be is the root, with join tokens for it
//
// A node that is down is waited for: with a certificate by the former root it could not come back. `skep swarm ca` names it, and
// `skep node rm` goes on without it.
//
// # Invariants
//
//   - R1: the root is dropped only when every node in the store that has a certificate has said that this and the identities of its tasks
//     are by the root to be, and that it trusts that root.
//   - R2: at most maxAsked nodes that answer renew at the same time.
//   - R3: everything is derived from the store: whoever leads next goes on.
//
// # Concurrency
//
// [Step] is pure. Run is the only goroutine, on the leader.
package rootrotation
