// Package seal encrypts what the store writes to disk, and keeps the keys for it.
//
// It is not a general encryption library: there is one algorithm, one envelope, and no way to open anything without the
// place that it was sealed for.
//
// # Keys
//
//	KEK (key-encryption key)                       DEK (data-encryption keys), in the key ring file
//	 - key file beside the data (default), or       - random, one current, older ones to read with
//	 - file that a TPM or systemd's host key opens, - sealed by the KEK
//	   or service credential, or                            |
//	 - unlock key that a person keeps (autolock)            |
//	        |                                               |
//	        +----------------- seals ---------------------->+----- seal -----> log entries, states, snapshots
//
// A key file beside the data protects nothing against a stolen disk: it only keeps the rest unreadable when it is stored
// elsewhere or destroyed. A TPM does protect against that, and not against who boots the machine. An unlock key protects against
// both, and losing it loses the manager's copy of the state, not its secrecy. This package only knows which of them it was; how
// the key is got is the business of package credential, below, and of the daemon.
//
// Changing the KEK (autolock on or off, a new unlock key, another provider) rewrites the key ring only. Adding a DEK
// (Ring.Rotate) makes all that is sealed from then on use it.
//
// A backup file has a data key of its own, sealed by a backup key or a passphrase (Key.Seal): no manager's ring opens it, so it can be
// restored anywhere.
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
//	"SKPRING" | format, '2' | KEK source, 1 byte | envelope sealed by the KEK
//
// Sources are 1 key file, 2 unlock key, 3 TPM2, 4 systemd's host key, 5 service credential. The plaintext, big-endian:
//
//	current id, 4 bytes | generation, 8 bytes | per DEK: id, 4 bytes | made at, seconds since 1970, 8 bytes | key, 32 bytes
//
// The time 0 is unknown. The generation is the number of the last rotation that the cluster asked for and that is done. Format 1
// has neither generation nor times; it is read, and replaced by format 2 with the next change. Source and format are bound to the
// envelope as its Place: the source as part, the format as index (0 for format 1).
//
// # Concurrency
//
// Key values are immutable. A Ring is safe for concurrent use.
//
// Sources: RFC 8439 (ChaCha20-Poly1305), draft-irtf-cfrg-xchacha.
package seal
