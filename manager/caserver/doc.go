// Package caserver is the CA's service: package ca decides, the store remembers, and this joins them.
//
// It does not authorize callers (manager/authz) and doesn't forward to the leader (manager/forward): both come before it. It
// signs nothing itself.
//
//	GetRootCertificate   anyone, any manager: the root is public
//	IssueCertificate     the bearer of a token, on the leader: a Node object and its certificate, or, by a join grant that needs
//	                     approval, the Node alone; then the same request asks whether a person let it in
//	RenewCertificate     a node, for itself, on the leader: a certificate with the role that its Node object says
//	IssueWorkloadCertificates  a node, for tasks that the store places on it, any manager: X.509-SVIDs; nothing is written
//	RenewExpired…        a node whose certificate has expired, by proof of its key, on the leader: likewise
//
// # Invariants
//
//   - I8: a certificate is issued only for a token that is valid now or to a node that is in the store now, and a task's only to the
//     node that is to run it now. All requests wait for a barrier first, so that a manager that is behind issues nothing.
//   - S1: who fails too often waits. Failures are counted by address, of the caller itself when another manager forwarded, so
//     that one who guesses keeps nobody else from joining. What remains of guessing, 128 random bits make hopeless.
//   - S2: no token is logged or put into an error.
//   - S3: a join grant is used in the transaction that makes the node: no more nodes than it allows, whoever races or replays, and
//     the same key is one use. Before a person has let a node in that needs approval, it has no certificate and so no rights.
//   - S4: a proof of the key of an expired certificate counts once: it is over a nonce that the leader gave out in the last minute.
//
// # Concurrency
//
// A Server is safe for concurrent use.
package caserver
