// Package authz decides who may call what, in one place: an interceptor before every handler, unary and streaming.
//
// The rule of a method is declared beside it in proto/ (skep.v1.access). This package holds no list of methods, looks at no
// request, and doesn't know what an object is; what belongs to whom (a node's own tasks) is the handler's question, which
// finds the Caller in its context.
//
// # A decision
//
//	transport            who                     the store knows         kind of caller       rule
//	unix socket -------> root, group skep -----------------------------> ADMIN --------+
//	         \---------> others ---------------------------------------> ANYONE -------+
//	TLS, certificate --> node of this swarm ---> same role ------------> its role -----+---> allowed?
//	         |                    |        \---> another role ---------> WORKER -------+
//	         |                    |         \--> nothing: removed -----> ANYONE -------+
//	         |                    +--- knows less than the certificate: catch up, then again
//	TLS for people ----> user ------------------> this certificate ----> its role -----+
//	                              |          \---> another, or revoked -> nothing -----+
//	                              +--- nothing: catch up, then again
//	TLS, none, foreign, expired ---------------------------------------> ANYONE -------+
//
// A certificate proves what was true when it was issued; the store says what is true now. So the role is the lower of both, and
// a removed or demoted node loses at once what its certificate still says. A manager whose store is behind could
// take a node that has just joined for a removed one: it catches up with the leader before it refuses. Methods that are declared
// may_be_ahead are the exception, because they are how a manager catches up; Raft itself refuses removed members.
//
// Users come by doors of their own (People), where a certificate of a node is worth nothing, as a user's is at the doors of nodes. A
// user's record has the fingerprint of the one certificate that counts, or none for an external user, whom a CA vouches for that is
// not the swarm's. The connections of a user who is revoked are closed, with what is under way on them.
//
// A call that another manager forwarded carries in its metadata who made it. Only managers are believed, and only for methods
// that are forwarded at all. The leader decides about a user once more, by what it knows itself.
//
// # Invariants
//
//   - A1: a method without a declaration is refused, and a server that registers one doesn't start (Check).
//   - A2: no request reaches a handler but through decide.
//   - A3: refusals are uniform: strangers get Unauthenticated, all others PermissionDenied, each with one text whatever was asked. Only
//     users, who have proved who they are, read what they lack.
//   - A4: who the caller is comes from the transport, never from the request.
//   - I9: a removed node is refused on every manager that applied its removal, its certificate notwithstanding; so is a
//     revoked user.
//
// # Concurrency
//
// An Authorizer is safe for concurrent use. Caller is a value.
//
// # Errors
//
// Refused tells a refusal of this package from an error of a handler.
package authz
