// Package gossipkeys keeps the keys by which nodes encrypt what they gossip about each other, see internal/gossip.
//
// Every 12 hours there is a new one. It goes to all nodes with their sessions, and is used for sending only when the next one comes:
// by then all nodes that are up have it. So there are three: one to come, one in use, and the one before, by which a node that
// was away may still send.
//
//	keys:  next, present, former        12 h later:  new, next, present
//
// Every node of the swarm has them, workers too: what is gossiped is a hint, and nothing is decided by it alone.
//
// A Rotator is one goroutine and runs on the leader. Run returns nil when its context ends, and an error that matches
// store.ErrNotLeader when leadership is lost.
package gossipkeys
