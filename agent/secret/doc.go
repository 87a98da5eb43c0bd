// Package secret holds the secrets that a node's tasks need, in memory only.
//
// It is not a store: what it holds came from a manager over the session, and is gone with the process.
//
//	Put ----> held ----Get: a copy----> the caller clears it after use
//	            |
//	            +--Remove, Replace, Clear: overwritten with zeros, forgotten
//
// Invariants:
//
//	S1  Nothing here is ever written to a disk or a log: a Value prints as "[redacted]" under every verb and encoder.
//	S2  A removed value is overwritten. Copies that [Holder.Get] handed out are the caller's to overwrite.
//
// A Holder is safe for concurrent use. Callers branch on no error: there is none.
package secret
