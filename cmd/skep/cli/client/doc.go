// Package client reaches a skep daemon, through its unix socket or over TCP with mutual TLS, and words what goes wrong on the way.
//
// It knows the connection, the request id that every call carries, and the one repetition of a call that the daemon
// could not serve. It does not know commands, flags or output.
//
//	Dial (no I/O) -> first call connects -> calls ... -> Close
//	                   | refused, missing, not allowed
//	                   v
//	               a fault that says what to do
//
// Invariants:
//
//	I1  A repeated call carries the request id of the first try, so that a write is applied once.
//	I2  Every error that a call returns is a fault (package fault); no text says "rpc error".
//	I3  Over TCP nothing is sent to a server that the user's CA does not vouch for as a manager, or as the host that was dialled.
//
// Concurrency: a Client may be used by several goroutines at once; Close only after the calls ended.
//
// Errors: faults of the kinds that the daemon sent; ErrUnreachable (Unavailable), ErrNotAllowed (PermissionDenied),
// ErrHost and ErrTLS (Invalid), ErrServer (Unauthenticated) for a server that proves to be none, and context.Canceled (Unavailable) for a call that was given up.
package client
