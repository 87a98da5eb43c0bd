// Package logfile keeps what a container prints in size-bounded files, and reads and follows them.
//
// It is not a log shipper and knows nothing of containers: bytes come in, and lines come out.
//
//	Writer:  Stream(stdout) ─┐
//	         Stream(stderr) ─┴─> path ──(full)──> path.1 ──> path.2 ──> ... ──> removed
//	Reader:  path.2, path.1, path ──> Next ──(at the end, following)──> wait for the writer ──> Next
//
// Format, which is Docker's json-file: one JSON object a line,
//
//	{"log":"text\n","stream":"stdout","time":"2006-01-02T15:04:05.999999999Z","seq":1}
//
// where seq is ours, and counts the entries, so that a reader can go on where it was and knows how many it has missed; and text
// without a final newline is a part of a longer line: longer lines are split every 16 KiB. Bytes that are not UTF-8 are replaced.
//
// Invariants:
//
//	I1  All files together never hold more than MaxFiles times MaxSize bytes.
//	I2  A disk that refuses a write never stops the container: the line is dropped and counted, and when the disk takes
//	    lines again the first says how many were lost and why.
//	I3  A reader gives the lines that it gives in order and once, over any number of rotations; if it is so slow that a
//	    file is removed before it was read, it goes on with the oldest there is, and says how many entries that leaves out.
//	I4  A reader waits for the kernel's word (inotify), never for a clock.
//	I5  A log's entries have numbers without a gap, whoever writes it, unless a file was damaged: what a Writer could not write has none.
//
// A Writer is safe for concurrent use; a Stream and a Reader are for one goroutine at a time.
package logfile
