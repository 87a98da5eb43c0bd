// Package daemon is a node: it joins an agent, a manager where its certificate says so, the image store and the container
// supervisor into one process, and answers people on a unix socket and, where it is told to, over TCP. It holds no rules about services, tasks or
// certificates; those are the packages' that it joins.
//
//	          init, join                             new certificate: manager
//	inactive ------------> active (agent) <--------------------------------> active (agent and manager)
//	   ^                      |                      new certificate: worker        |
//	   |        leave         |                                                     |
//	   +----------------------+-----------------------------------------------------+
//
//	active --restart with autolock--> locked --unlock--> active
//	active --a part of it fails--> error --after a pause that doubles, 1 s to 1 min--> active
//	active --restart, damaged disk--> error, which stays: `leave --force` ends it, or on a manager `rejoin`
//
// Containers are not the daemon's children: they run below skep-runtime, and go on when the daemon ends.
//
// # Crashes
//
// swarm.json is what makes the machine a member. Init writes it last, when the swarm is there; join once there is a
// certificate; leave first marks it and at the end removes it before all else. What is found at the start without it, or with the
// mark, is removed, containers first. A rejoin moves the store to raft.former; a manager that starts without a store joins the group by
// itself, and once it votes the former store is removed.
//
// # Keys
//
// With autolock the unlock key seals both the store's key ring and the node's TLS key (I11). Without, the node's own key does: that
// of the provider that the daemon is started with, see ownKey. At each moment of a change either the former or the new key opens
// both; see nodeKeys. The plain key file, which lies beside the data, seals the key ring only: the TLS key is in clear then. Workers
// keep theirs as their provider says: they have no store to learn an unlock key from.
//
// A locked node answers only what unlocks it, forgets its swarm or its store, or says that it is locked; it does not listen for other
// nodes.
//
// # Concurrency
//
// Daemon's RPC handlers may be called from any goroutine; one lock orders changes of state. Daemon.mu may be held when
// node.mu is taken, never the other way round.
package daemon
