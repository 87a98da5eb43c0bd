// Package agent is a node's side of the swarm: it runs the tasks that managers assign to this node, and tells what became of
// them.
//
// It joins subsystems that know nothing of each other, and decides nothing itself. It is no manager, holds no cluster state and
// starts no process: skep-runtime does.
//
//	managers                                   peers
//	   |  session, assignments, statuses         |  GetBlob, ReadTaskLogs, ReadTaskStats
//	   v                                         v
//	+-------------------------- agent.go -----------------------------+
//	| session   task   executor   network   secret   images   logs    |
//	+-------------------------------|---------------------------------+
//	                                v
//	                           skep-runtime
//
//	session   in touch with one manager at a time; statuses are told until acknowledged
//	task      what to do next about each task, and what must survive a restart
//	executor  a task, an image and secrets become a container
//	network   addresses, the bridge, published ports
//	secret    secrets in memory
//	images    images from other nodes, and for them
//	logs      what tasks wrote
//
// Life of an assignment: session -> secrets are held, tasks saved and begun -> executor prepares and starts -> statuses go back.
// When the session is lost, everything goes on; when the daemon is restarted, containers run on and are adopted. When the machine was
// restarted and no manager tells in time what to do, the node starts again what ran there, as long as its certificate is valid (alone.go).
//
// Invariants: I6, I7 (a node runs only what is assigned to it) and I15 of the reliability programme, and those of the subsystems.
//
// Concurrency: New, Register, then Run once; the other methods are safe for concurrent use. Run returns when every goroutine has
// ended.
//
// Errors: New returns those of task.Open, session.New and network.New, such as [session.ErrNoManagers] and [network.ErrOverlap].
//
// Files below the data directory: agent/ (task.Open, session.New), containers/ (executor), network/ (network).
package agent
