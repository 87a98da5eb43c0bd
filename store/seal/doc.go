// Package seal encrypts what the store writes to disk, and keeps the keys for it.
//
// It is not a general encryption library: there is one algorithm, one envelope, and no way to open anything without the
// place that it was sealed for.
//
// # Keys
//
//	KEK (key-encryption key)                       DEK (data-encryption keys), in the key ring file
//	 - key file beside the data (default), or       - random, one current, older ones to read with
//	 - unlock key that a person keeps (autolock)    - sealed by the KEK
//	        |                                              |
//	        +----------------- seals --------------------->+----- seal -----> log entries, states, snapshots
//
// A key file beside the data protects nothing against a stolen disk: it only keeps the rest unreadable when it is stored
// elsewhere or destroyed. An unlock key does protect, and losing it loses the manager's copy of the state, not its secrecy.
//
// Changing the KEK (autolock on or off, a new unlock key) rewrites the key ring only. Adding a DEK (Ring.Rotate) makes all
// that is sealed from then on use it.
//
// # Envelope
//
//	offset  size  content
//	0       1     format, 1
//	1       4     id of the key, big-endian; 0 for a KEK
//	5       24    nonce, random
//	29      n+16  XChaCha20-Poly1305 ciphertext and tag
//
// The associated data are the header (format and key id) and the Place: kind, cluster, index, term, part. So an envelope can
// not be moved to another position, kind of record, or cluster. A nonce of 192 random bits does not repeat: after 2^64
// envelopes the chance is below 2^-64, and nothing has to be remembered for that across crashes.
//
// What it can't prevent: the whole directory being replaced by an older copy of itself.
//
// # Key ring file
//
//	"SKPRING1" | KEK source, 1 byte (1 key file, 2 unlock key) | envelope sealed by the KEK
//
// Its plaintext is: current id, 4 bytes big-endian; then per DEK its id, 4 bytes, and 32 bytes of key.
//
// # Concurrency
//
// Key values are immutable. A Ring is safe for concurrent use.
//
// Sources: RFC 8439 (ChaCha20-Poly1305), draft-irtf-cfrg-xchacha.
package seal
