// Package filetree carries a file, a link or a directory with all below it from one place to another, as a tar stream: `skep cp`
// packs at one end and unpacks at the other.
//
// It finds no paths in containers and knows no tasks. Neither end is trusted with the other: what is packed may change while it is
// read, by somebody who means harm, and what is unpacked may have been written by one.
//
//	Packer ──tar: the thing itself first, under its name or "." for what it contains; then what is below it──> Unpack
//
// Whether a stream lands at a destination, in it, or not at all is decided by the rules of `docker cp`, from its first entry and from
// what is at the destination: see [Unpack].
//
// Invariants:
//
//	T1  Nothing is read or written outside of the directories that the caller opened, whatever links there are or get there meanwhile.
//	T2  A stream writes to the one thing that its first entry names, and below it. So what comes can't choose a name beside it.
//	T3  No device, FIFO or socket is opened, read or made; set-user-ID and set-group-ID are set only where the caller says so.
//	T4  Memory does not grow with the size or the number of files, but for the names of at most maxLinks hard links.
//	T5  A directory that was there keeps its owner and mode.
//
// Concurrency: a Packer is for one goroutine.
//
// Sources: tar(5), POSIX.1-2017 pax, `docker container cp` (its documentation).
package filetree
