// Package memfs makes small file systems in memory whose pages never reach a disk, for secrets and for the scratch
// layer of read-only containers.
//
// It is a tmpfs that is never swapped where the kernel offers that (6.4), else a ramfs, which can't be swapped at all.
// A mount is detached: it has no place in any mount table until somebody attaches it, and it is gone when its last
// user is.
//
//	New ──> FS (detached) ── Write... ──> Seal (read-only) ── FD sent to the container ──> Close
//	          ├── Attach: shown at a directory until it is unmounted there
//	          └── attached by others ── Reopen ──> FS of the same content, writable ── Replace... ──> Close
//
// Invariants:
//
//	I1  Content is written to memory that can't be swapped, or not at all.
//	I2  After Seal nobody can write through this mount.
//	I3  The size is bounded: by the kernel on tmpfs, by Write on ramfs. What Replace takes the place of counts no more once nobody has it open.
//	I4  Who opens a file that is replaced has the old one or the new one, as a whole.
//
// An FS is not safe for concurrent use.
package memfs
