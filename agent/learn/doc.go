// Package learn records for managers which system calls the tasks of a service make on this node.
//
// It decides nothing about who may, which the manager did, and it makes no profile: it tells names of calls.
//
//	manager ==stream==> Server: RecordStart ──> systrace.Recorder <── programs in the kernel
//	        <== names so far ==  each second, if there is something new
//	        == LearnStop ==>     one last time, and the end
//	executor ──Created──> Server: a task of the service is about to begin
//
// A stream has a recorder of its own, which exists for as long as the stream does. Nothing is kept.
//
// Invariants:
//
//	L1  A recorder ends with its stream: when the manager goes, or this daemon does.
//	L2  What a task is kept from doing does not change while it is recorded.
//
// Concurrency: a Server is safe for concurrent use. A stream owns its goroutine and waits for it.
package learn
