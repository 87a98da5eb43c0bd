// Package metrics shows Prometheus how a manager's store and its Raft group are, and, on the leader, the swarm.
//
// It keeps nothing: everything is read when somebody asks. Every manager shows its own place in the group. What is the same on all of
// them, nodes and tasks by their states, only the leader shows, so that sums are right.
//
// Concurrency: a Collector is safe for concurrent use.
package metrics
