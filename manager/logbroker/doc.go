// Package logbroker reads the logs of tasks from the nodes that keep them, and merges them by time.
//
// It keeps no logs, and it runs on any manager: all that it asks of the store is which tasks there are, and where.
//
//	                     store: tasks, nodes, and in follow mode what becomes of them
//	                        |
//	node --ReadTaskLogs--> source --head--+
//	node --ReadTaskLogs--> source --head--+--> merge by time --> send
//	node (unreachable) --> gap -----------+
//
// There is one source per task, and its stream is read one line ahead: what a reader does not take waits on the node, so a
// read needs memory for one line and one stream's window per task, however much a task writes: 64 MiB for the largest one.
//
// # Order
//
// Without follow, a line is sent when every source that has not ended shows its next one: the order is by time, exactly. With
// follow, a task that is silent must not hold back the others, so a line is also sent once it waited for maxHold.
//
// # Gaps
//
// A node whose lines can't be had, wholly or from some point on, gives one LogGap with the reason, and never holds up the
// others: connecting is bounded by connectTimeout, silence without follow by silenceTimeout, and with follow a node that is
// found to be down ends its sources. A node that does not know a task any more has no lines of it, which is no gap.
//
// # Follow
//
// Tasks of the service that start later join. The read ends when its task ended, or its service is removed and all its tasks
// have ended.
//
// # Concurrency
//
// A Broker is immutable and safe for concurrent use. A read owns its goroutines, one per source, and waits for them; send is
// called by the caller's goroutine alone.
package logbroker
