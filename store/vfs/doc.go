// Package vfs is the seam between the store and the file system, so that crashes, lost syncs, torn writes and errors can be
// tested at every point.
//
// It is not a general file system: it has what the store needs, and no more. Three implementations share one interface:
//
//	OS      the real one
//	Mem     in memory; knows what a crash would leave, see Mem.Crash
//	Inject  wraps another one and fails operations that a test picks
//
// # What a file system promises here
//
//   - Bytes are durable after File.Sync, and not before: a crash keeps any subset of the 512-byte sectors written since.
//   - A name (created, renamed, removed) is durable after SyncDir of its directory; a crash keeps any prefix of the changes
//     of the directory since.
//   - Rename replaces atomically.
//
// # What the seam does not cover
//
// OpenOS gives an *os.File to what needs one: bbolt, which reads logs of format 1. On Mem that is a memfd; crash clones copy it as
// it stands, so lost and torn writes inside it are not modelled.
//
// All methods of file systems are safe for concurrent use; a File belongs to one goroutine at a time.
package vfs
