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
//	FORMAT            text: "skep store 2", "cluster ID"; format 1 is brought to this one, another number is refused
//	keys              the key ring, see package seal
//	log-NUMBER        a segment of the log: 16 hexadecimal digits, from 1, none missing
//	snap-INDEX-TERM   "SKPSNAP1", then parts: length, 4 bytes big-endian, and an envelope; part 0 is the
//	                  raftpb.ConfState, the others up to 1 MiB of data each; the last is marked as such
//	INCOMPLETE        there while Create is at work
//	spare.tmp         a segment that is kept ready, all zero
//
// # Segments
//
// A segment has a fixed size and is full of zeros before it is used. Its first sector (512 bytes) is its head; frames follow, each
// at a sector of its own. All numbers are big-endian.
//
//	head    "SKPLOG2\n" | number 8 | number of its first frame 8 | size 8 | zeros | CRC-32C 4
//	frame   "SKPF" | size 4 | number 8 | index 8 | term 8 | CRC-32C 4 | envelope
//	        envelope: length 4 | records | zeros up to the end of the sector
//	record  1 entry, 6 entry again    index 8 | term 8 | type 1 | length 4 | data
//	        2 hard state              term 8 | vote 8 | commit 8
//	        3 mark                    index 8 | term 8 of the snapshot that counts
//	        4 reset                   no entries: the log goes on from the mark
//	        5 identity                length 4 | api.JoinResponse
//
// A frame is one Save. Its number, and the index and term of its first entry, are bound to the envelope; frames count on from
// segment to segment. An entry ends the log: those at its index and after it are gone. A segment's first frame repeats identity,
// hard state and mark, so that older segments can go when their entries are not needed.
//
// # What a crash leaves
//
// Frames follow each other only after a sync, so only the last one can be incomplete. Whatever of it reached the disk, at least
// one of its sectors is still all zero, which sealed sectors never are. That is a torn write: nobody was told that it was durable;
// it is wiped. A frame that does not open without such a gap was complete once and has changed since: that is damage. A sector
// that became all zero later, in the last frame only, looks torn; the group notices, because this manager acknowledged more
// than it has (raftcore.ErrBroken).
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
// Save is one write and one fdatasync, of a file whose size does not change. Filling a segment costs more; Prepare does it
// beforehand. Batching is up to the caller.
//
// # Concurrency
//
// Save, Install, Compact and Rotate belong to one goroutine at a time. WriteSnapshot, OpenSnapshot, ReadSnapshot and Prepare may run
// beside them.
package wal
