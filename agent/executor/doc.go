// Package executor runs the containers of this node's tasks: it turns a task, its image and its secrets into a request to the
// container runtime, and keeps what surrounds a container.
//
// It decides nothing about tasks (agent/task does), starts no process (skep-runtime does), and knows images, networks,
// secrets and identities only by the interfaces below.
//
//	Prepare   image leased, ids allocated, directories made       <dir>/<task>/{container.json,upper,work}
//	Start     secrets gathered, user looked up, address reserved,
//	          identity provided                                   -> runtime: create
//	          eth0 attached to the created container              -> runtime: start
//	Wait      the exit code comes                                 <- runtime
//	Refresh   files whose values changed are written again, and
//	          then the signals sent                               -> runtime: rewrite, kill
//	Release   container, interface, layer, ids and lease freed    <dir>/<task>/{container.json,log.json*} is left
//	Remove    the log too                                         nothing is left
//
// Invariants:
//
//	E1   No two containers have an id of the node in common: each has 65,536 of its own.
//	E2   The image decides what program runs, as whom, where, and with which variables; nothing else. It never weakens isolation.
//	E3   Secrets are given to the runtime as memory and never written to a file; copies are overwritten after use.
//	E4   Files of an image are read below its layers only, whatever links they have, and up to limits.
//	E5   A signal that a new value calls for is sent when the file has that value. Only then container.json says so: after a crash the file is
//	     written and the signal sent again, so that none is left out, and one is sent twice only if the crash came between the two.
//	I15  Nothing outlives its task: Release and Remove free everything, Adopt removes what has no task.
//
// Concurrency: an Executor is safe for concurrent use, if for one task the methods are called one at a time but Stop and Kill,
// which may come during Wait.
//
// Errors: those of the kind fault.Invalid and fault.NotFound are the user's, in words for him; fault.Unavailable is temporary.
//
// Every process gets, beside the image's and the service's variables, SKEP_NODE_ID, SKEP_NODE_HOSTNAME, SKEP_SERVICE_ID,
// SKEP_SERVICE_NAME, SKEP_TASK_ID, SKEP_TASK_SLOT and SKEP_TASK_NAME (service.slot.id).
// SPIFFE_ENDPOINT_SOCKET is set to its socket at /run/skep/identity, unless the service sets it to something else.
//
// container.json is {"version":1,"image":"sha256:...","id_base":268435456,"released":false}; log.json is Docker's json-file.
//
// The combination of image and service configuration is Docker's (daemon/oci_linux.go as documented in its reference).
package executor
