// Package execbroker lets people into the containers of tasks: it finds the task and its node, and passes one stream on to it,
// of a program that is run or looked at or of files that are copied, or one call that halts, signals or lists the task's processes.
//
// It keeps nothing and runs on any manager. Nobody needs a way to the nodes but the managers: a person speaks with one of
// them, over a connection that authz has looked at, and that manager with the node, over mutual TLS, as for logs.
//
//	person ==ConnectTask==> Broker ==ConnectNodeTask==> agent of the task's node
//	             |
//	             +--> audit log: who, what, which task; and at the end, with what result
//
// Invariants:
//
//	B1  Only a task that the store says runs is connected to, on the node that the store says.
//	B2  No variable of the environment, no input and no output is in the audit log, and no log line has any of it.
//	B3  When either side goes away, the other one is ended.
//	B4  Nobody gets into a task by whom its grants may not be used: a command there has all that they give.
//
// Concurrency: a Broker is safe for concurrent use. A call owns its connection and its goroutines, and waits for them.
package execbroker
