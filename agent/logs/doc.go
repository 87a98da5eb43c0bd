// Package logs reads what tasks on this node wrote, for the managers that collect it.
//
// It neither writes logs (skep-runtime does) nor knows services: it is given paths.
//
//	files of each task -> one reader per task -> lines, in order per task, mixed between tasks -> send
//
// Following a task begins when it is prepared, and ends when the task has ended and all that it wrote was sent.
//
// Invariants: L1, a reader holds at most one line that was not sent; L2, Read returns only when all its readers have ended (I15).
//
// A Reader is safe for concurrent use. Errors are of the kind fault.Invalid for too many tasks ([MaxTasks]), and fault.NotFound when
// none of the tasks has a log here.
//
// The format of the files is in package runtime/logfile.
package logs
