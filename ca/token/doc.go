// Package token makes, prints, parses and compares join tokens: the one line that lets a machine into a swarm.
//
// It is not the place where tokens are kept (the store, sealed) or handed out (the control API, to admins only), and it
// knows nothing about the network.
//
// # Format
//
//	SKPTKN-1-<digest: 50 characters>-<secret: 25 characters>
//
// Both fields are big-endian unsigned integers in base 36 (digits 0-9a-z, lower case only), padded on the left with zeros to
// their fixed width. The digest is the SHA-256 of the concatenated DER encodings of the root certificates, in the
// order of the bundle, so it does not depend on how a PEM file was wrapped. The secret is 128 random bits.
//
// The digest comes first because it is used first: a joiner compares it with the root that the manager shows before it
// sends a byte of the secret, so that a machine in the middle learns nothing but public data.
//
// A standing token and that of a join grant look the same. Of the latter the managers keep SHA-256(secret) alone: the whole hash to
// compare, and its first 16 bytes, as 25 characters like a secret, for an ID, so that a token finds its grant without trying all.
//
// # Invariants
//
//   - T1: one token has one spelling. Parse(s).Reveal() == s for each s that Parse accepts: another case, width, a number too
//     large for its field, or white space is refused.
//   - T2: secrets are compared in constant time.
//   - T3: no formatting verb, JSON or log encoder prints a secret; only Reveal does.
//
// # Concurrency
//
// Values are immutable; every function may be called from any goroutine.
//
// # Errors
//
// ErrMissing, ErrMalformed, ErrOtherRoot, ErrWrongSecret. No error's text repeats what the user typed, because that may be a
// secret with one typing error.
package token
