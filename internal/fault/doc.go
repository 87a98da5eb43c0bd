// Package fault says what kind of thing went wrong, so that a caller in another process can branch on it.
//
// A fault is an error with a [Kind]. It crosses gRPC as a status: [Status] on the server's edge, [FromStatus] on the
// client's, and the kind and the text survive the round trip. An error without a kind is Internal: its text stays on
// the server, which logs it, and the client is told only that it happened.
//
// It is not a place for retry policy, stack traces or error catalogues: packages keep their own sentinels and wrap them.
//
// Concurrency: all functions are pure.
package fault
