// Package day simulates a day of a swarm: three managers and seven workers in one process, in a bubble of testing/synctest, while
// people deploy, change and remove services and machines fail, as a seed says. It checks what must hold all the time, and that
// everything is as people want it whenever there was quiet for a while. The package has nothing but tests.
//
//	go test ./e2e/day                                                # a short while, and the quick ones of the planted bugs
//	go test ./e2e/day -run Holds -day-seed 7 -day-length 1h          # repeats a run, as a failure prints it
//	go test ./e2e/day -timeout 2h -day-length 24h -day-bugs          # a day, and the search for all planted bugs: "make soak"
//
// # What is real
//
//	nemesis --control API--> managers (package manager: store, Raft, dispatcher, all loops) --TLS, gRPC--> agents (session, task, secret)
//	                              |                                                                            |
//	                     vfs.Mem, for the log and snapshots                                            executor (here) -> books
//
// All of the control plane and of a node's control side is what the daemon runs: package manager on real stores with their logs,
// raftnet, certificates and joining by tokens, the control API behind authorization and forwarding, agent/session, agent/task with
// its database, agent/secret. The clock is the bubble's; the network and the managers' disks are memory. A node's containers are the
// executor of this package, which draws from the seed how long things take and what fails, and keeps books of what really ran. The
// agent's own wiring (package agent) is written again in agent_test.go, because it is bound to the container runtime.
//
// # What happens
//
// A schedule has steps for ten minutes, then all that is wrong is mended and the swarm must come to rest. Steps create services of
// all modes, update orders and failure actions, with constraints, reservations, ports, readiness checks and secrets; scale, update, break, roll
// back, pause and remove them; change secrets; drain, pause, activate and label nodes; stop, kill and power off machines, start
// them again or have them join anew; cut machines off, or two of them from each other; have another manager lead. At most one manager is out of reach at a time, or all of
// them are for some minutes. By themselves, servers crash
// now and then, jobs fail, and programs ignore signals.
//
// # What is checked
//
// In the books, as it happens:
//
//   - I5: a slot has one process, and two only where the new one starts first; more only where a machine was out of reach.
//   - I12: no two tasks on a machine have the same published port or device.
//   - I13: what runs on a machine fits it; where a task is put, the node took tasks and met the constraints at that time.
//   - Each slot of a job's iteration ends well once, unless its machine was out of reach.
//   - A node is said to be down only if its machine was out of reach.
//   - A container is not released before its process has ended.
//
// Through the control API, when there was quiet (settle):
//
//   - The services are those that people asked for, as large as they asked.
//   - Every service has its tasks, each on the present spec: in each slot, or on each node that it fits; jobs are complete; no update
//     is under way; nothing runs on drained nodes, or without a service.
//   - Two who follow the events of services, from one manager after the other and each time from their cursor on, have heard of every
//     service that came and went, once, and of the same events in the same order.
//   - What a plan (`skep service plan`) says of a change is what comes of the change, while nothing else happens: which tasks go on, which
//     are replaced, how many are new, and where those of the first step are. Where others are, and those that wait for a port, depends on how
//     long tasks take.
//   - Each machine has the processes, containers and secrets that the API says, and nothing else. It stays so.
//
// The checks are checked by planting bugs (bugs_test.go) at the edges: before the executor, in what an agent hears and tells, and in
// what people's calls say and are told.
//
// # What a seed repeats
//
// A seed gives the same steps at the same times, and the same draws of each executor in the order in which it is asked. It does not
// give the same run to the letter: which of two goroutines of a bubble goes first is the Go scheduler's choice. So a failure
// may need a few tries to come back. e2e/sim, which has one goroutine, repeats exactly, and knows the store only.
package day
