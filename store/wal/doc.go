// Package wal keeps a manager's Raft log, its state and its snapshots on disk, sealed.
//
// It does not interpret entries, and it does not decide what to keep: the store does.
//
// # Life of a directory
//
//	         Create                      Save, Compact, Install…
//	(none) ---------> INCOMPLETE ----> FORMAT <---------+
//	                      |              |  \-----------+
//	                      | crash        | Open: reads and checks everything,
//	                      v              v   or stops with *CorruptError
//	               wiped by Create    (*WAL, *State)
//
// # Files
//
//	FORMAT            text: "skep store 1", "cluster ID"; another number is refused
//	keys              the key ring, see package seal
//	raft.db           bbolt; bucket "log": index, 8 bytes big-endian -> term, 8 bytes big-endian, and an envelope of
//	                  the entry's type (1 byte) and data; bucket "meta": "hardstate", "identity", "mark" -> envelopes
//	snap-INDEX-TERM   "SKPSNAP1", then parts: length, 4 bytes big-endian, and an envelope; part 0 is the
//	                  raftpb.ConfState, the others up to 1 MiB of data each; the last is marked as such
//	INCOMPLETE        there while Create is at work
//
// # Invariants
//
//  1. When Save returned, its entries and hard state survive any crash. (I2)
//  2. The log has no gaps, starts right after the marked snapshot or before its end, and reaches the commit index. Anything
//     else is corruption, and Open names the index. Entries that do not open are never returned.
//  3. The marked snapshot is complete: the mark is written after the file is durable, and other snapshots are removed after
//     the mark is durable.
//
// After an error of a method that writes, the WAL must not be used any more: what is on disk is not known.
//
// # Costs
//
// Save is one bbolt transaction: two fdatasyncs, one for pages and one for the page that makes them count. Batching is up to
// the caller.
//
// # Concurrency
//
// Save, Install, Compact and Rotate belong to one goroutine at a time. WriteSnapshot and ReadSnapshot may run beside them.
package wal
