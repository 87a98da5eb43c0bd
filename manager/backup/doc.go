// Package backup writes the state of a cluster into one sealed file, checks such files, and readies what is in them for a new
// manager. It also makes backups by schedule.
//
// It does not make stores or identities: whoever restores a backup joins it with package caserver and package store.
//
// # File
//
//	offset  size  content
//	0       8     "SKPBAK1\n"; another number is another version, and refused
//	8       4     length of the header, big-endian, at most 4 KiB
//	12      n     api.BackupHeader, readable: which cluster, when, how much, and how it is keyed
//	...           envelopes, each after its length, 4 bytes big-endian:
//	                the data key, sealed by the backup key or by Argon2id of the passphrase
//	                part 0: the same bytes as the header
//	                parts 1…: encoded api.StoreSnapshot messages that give the state when they are merged, of 1 MiB or a little
//	                more each; the last is marked in its number
//
// Envelopes are those of package seal, bound to cluster, index and part. The data key is random and of this backup alone. So parts
// can't be left out, moved, or taken from another backup, and no byte of the file can be changed: a reader returns nothing
// before it is proved. The header proves nothing until Unlock compared it with part 0.
//
// # Life of a backup
//
//	Create: barrier, snapshot --> file --NewReader--> header --Unlock--> genuine --State--> state --Check--> problems, or none
//	                                                                                        |
//	                                                              Succeed: one new manager -+-> store.BootstrapFrom
//
// # Schedule
//
// The leader makes a backup whenever Step says so, in a directory on its own disk, verifies the file as it lies there, notes it in
// the store, and only then removes the oldest of its directory. What decides is in the store, so that another leader neither skips
// nor repeats one; it has its own directory.
//
// # Invariants
//
//   - B1: a backup holds every write that was acknowledged, on whichever manager, before Create was called.
//   - B2: nothing of the state is readable in a file, beside what the header says.
//   - B3: what State returns is what was written; a file with any other byte in it is refused.
//   - B4: a reader needs memory for the header, one part, and what has been proved so far; and at most 256 MiB for Argon2id.
//   - B5: a scheduled backup is noted when it is verified, and older ones go when a newer one is noted.
//
// # Errors
//
// ErrNotBackup, ErrVersion, ErrDamaged, ErrWrongSecret, ErrNeedsKey and ErrNeedsPassphrase come from readers, ErrNoKey and ErrBehind
// from Create, ErrPassphrase from NewPassphrase.
//
// # Concurrency
//
// A Reader is for one goroutine at a time; the functions are safe for concurrent use. Run owns no goroutine.
package backup
