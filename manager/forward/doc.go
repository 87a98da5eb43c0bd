// Package forward lets every manager answer every call: one that only the leader can answer goes to the leader.
//
// It does not authorize: on both managers the authorization comes first, so the leader sees a manager calling, and learns
// from metadata, which only managers are believed, who called that one. It does not retry what an application refused.
//
// # Life of a call
//
//	            leader: false                 this manager leads
//	call ---+----------------> handler    +------------------------> handler ---> answer
//	        | leader: true                |                             | NotLeader: leadership was lost
//	        +------------------> who leads? <---------------------------+
//	                              |     ^
//	                another does  |     | NotLeader, or the connection broke
//	                              +--> leader's Control, CA, Raft … ---> answer, as it came
//
// While nobody leads, or the leader can't be reached, a call waits for news, as long as its context and maxWait allow.
//
// # Invariants
//
//   - F1: a call that was forwarded is never forwarded again: two managers that each take the other for the leader answer
//     NotLeader at once.
//   - F2: each call that may be tried twice carries a request id, the caller's or a fresh one, so that the leader applies
//     its writes once.
//   - F3: an error that a handler returned is the answer; only an error of the way to it, or NotLeader, is tried again.
//
// # Concurrency
//
// A Forwarder is safe for concurrent use. It keeps one connection, to the leader it used last; Close ends it.
//
// # Errors
//
// Unavailable, with the text of Docker, when no leader answered in time; otherwise the handler's.
package forward
