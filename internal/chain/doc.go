// Package chain is the hash chain of the audit log: how events and entries are encoded, how they are hashed, and how a chain is
// checked. Managers build the chain with it; whoever has an export checks it with the same code.
//
// It stores nothing and asks nobody.
//
// # Format
//
// An event is encoded as an api.AuditEvent whose fields come in ascending order, each at most once, without those that are
// empty, numbers in as few bytes as they need. So each event has exactly one encoding. proto.Marshal does not promise that; this
// package's own encoder does, and any protobuf library decodes what it wrote.
//
//	hash(0) = SHA-256("skep audit log 1\x00" cluster id)
//	hash(n) = SHA-256("skep audit entry 1\x00" hash(n-1) n time event)
//
// n and time (nanoseconds since 1970) have 8 bytes, big endian. Hashed are the bytes that are stored, never a fresh encoding of what
// was decoded, so that a manager passes on, and chains, fields that only a newer version knows.
//
// In a segment (api.AuditSegment), each entry is its time (8 bytes, big endian), the length of its event (varint), and the event.
//
// # Invariants
//
//   - C1: an event has one encoding; Encode(Decode(b)) is b, or Decode refuses b.
//   - C2: a Verifier that returns no error up to a known head has seen exactly the entries that led to that head.
//
// # Errors
//
// A *BrokenError names the entry where a chain breaks. ErrEncoding is an event or a segment that this package did not write.
package chain
