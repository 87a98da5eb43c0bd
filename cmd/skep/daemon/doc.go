// Package daemon is a node: it joins an agent, a manager where its certificate says so, the image store and the container
// supervisor into one process, and answers people on a unix socket. It holds no rules about services, tasks or
// certificates; those are the packages' that it joins.
//
//	          init, join                             new certificate: manager
//	inactive ------------> active (agent) <--------------------------------> active (agent and manager)
//	   ^                      |                      new certificate: worker        |
//	   |        leave         |                                                     |
//	   +----------------------+-----------------------------------------------------+
//
//	active --restart with autolock--> locked --unlock--> active
//
// Containers are not the daemon's children: they run below skep-runtime, and go on when the daemon ends.
//
// Concurrency: Daemon's RPC handlers may be called from any goroutine; one lock orders changes of state.
package daemon
