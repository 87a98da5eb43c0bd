// Package exec lets people into the containers of this node's tasks, through managers: it runs programs in them, passes their
// input and output on, and those of what runs there anyway, copies files, and signals, halts and lists processes.
//
// It decides nothing about who may: the manager did, and only managers are heard. It keeps nothing: the container runtime
// starts the process and hands over the ends of its pipes, or its terminal, and this package copies between those and one
// gRPC stream.
//
//	manager ==stream==> Server ──client.Exec──> runtime (starts the process, or has it)
//	        <== output ==  |  <── descriptors ──
//	        ==  input ==>  └── copies ──> pipes or terminal of the process
//
// Invariants:
//
//	X1  A process that was started for a stream ends with it, unless it is detached. The first of a container never does.
//	X2  Everything that a process wrote before its end is sent before the end is told.
//
// Concurrency: a Server is immutable and safe for concurrent use. A stream owns its goroutines and waits for them.
package exec
