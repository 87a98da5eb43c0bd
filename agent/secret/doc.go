// Package secret holds the secrets that a node's tasks need: in memory, and of services that ask for that (--secret-offline) on the disk,
// sealed.
//
// It is not a store: what it holds came from a manager over the session. What a [Holder] has is gone with the process; what a [Vault] has goes with the task.
//
//	Put ----> held ----Get: a copy----> the caller clears it after use
//	         |  |  ^
//	         |  |  +--Load, after a restart of the machine with no manager in reach---+
//	         |  +-----Keep: sealed by the node's key --> one file for each task ------+--Sweep, Clear: erased
//	         +--Remove, Replace, Clear: overwritten with zeros, forgotten
//
// Invariants:
//
//	S1  Nothing here is ever written to a disk or a log in clear: a Value prints as "[redacted]" under every verb and encoder.
//	S2  A removed value is overwritten. Copies that [Holder.Get] handed out are the caller's to overwrite.
//	S3  A Vault writes what Keep is told to, and nothing else; a file is replaced whole, and what a crash left of one goes with the next Sweep.
//	S4  A file opens with the key of its node, as that task's, whole and unchanged, or not at all.
//
// A Holder and a Vault are safe for concurrent use. Callers branch on [ErrSealed] and fs.ErrNotExist.
//
// A file of a Vault, mode 0600, has the name of its task's id:
//
//	"SKPOFFL1" | nonce, 24 bytes | XChaCha20-Poly1305 ciphertext and tag
//
// The key is HKDF-SHA256 of the node's own, for the use "skep offline secrets 1"; the associated data are the first 8 bytes, the node's id and the
// task's, each after its length (varint). The plaintext has an [api.Secret] with id, version and data for each secret, each after its length (varint).
// Erasing is unlinking: what a disk keeps of unlinked blocks is sealed, and opens only as long as the node has that key. Nodes get a new one with each
// renewal of their certificates.
package secret
