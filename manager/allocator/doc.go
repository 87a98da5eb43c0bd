// Package allocator gives a new task what it must have before a node can be chosen: today, the ports that it publishes.
//
//	NEW --ports settled--> PENDING
//
// A port that names no port of the node gets the container's port, no protocol is TCP, and every port is published on the
// node that runs the task. Whether that port is free is for the scheduler to see, because it depends on the node.
//
// Step is pure. The Loop is one goroutine, runs on the leader only, and derives its work from the store: a task is its work
// for as long as it is NEW. Run returns nil when its context ends, and an error that matches store.ErrNotLeader when
// leadership is lost.
package allocator
