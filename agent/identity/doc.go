// Package identity gives the tasks of this node their identities: an X.509-SVID each, as files in memory and through the SPIFFE
// Workload API on a socket, renewed for as long as the task runs.
//
// It decides nothing about who is who (managers do, by their store) and knows nothing of containers: it is told of a task, and
// gives a directory that the container sees at /run/skep/identity. Whoever can reach the socket in that directory is the task.
//
//	Provide --> directory mounted, socket open --asks managers--> SVID served <----------------+
//	                        ^                          |                                        | a new key and SVID, at
//	                        |                          | refused, no manager: tried again,      | 50-80 % of its life, and
//	Adopt (daemon restart) -+                          v what is there is served until it ends  | when other roots are trusted
//	Withdraw --> nothing is left                       +----------------------------------------+
//
// Invariants:
//
//	W1  A key is made here, for one SVID, and is in no message, no log and on no disk: its directory is a file system in memory
//	    that is not swapped, below one that only root can enter.
//	W2  A socket gives the identity of one task, that of its directory, whatever the caller says or is.
//	W3  Who reads the directory through the link "current" finds a key, an SVID and roots that belong together.
//	W4  What a container could have done to its directory leads nowhere else: files are reached below it only.
//	I15 Withdraw leaves nothing, and Adopt removes what has no task.
//
// In a directory, with <x> the one of a and b that current leads to; the other holds what was before, for those who are reading:
//
//	workload.sock                     the SPIFFE Workload API (X.509 only), mode 0666
//	current -> <x>                    replaced all at once
//	<x>/svid.pem       0444           the SVID and what leads to a root
//	<x>/svid_key.pem   0400           its key, PKCS #8
//	<x>/bundle.pem     0444           the roots that the swarm trusts, two while it changes its root
//	svid.pem, svid_key.pem, bundle.pem -> current/...
//
// All of it belongs to the user that the container runs as.
//
// Concurrency: a Keeper is safe for concurrent use, if for one task Provide, Await and Withdraw are called one at a time. The decisions
// when to ask are a core (plan) without clock and randomness.
//
// Sources: the SPIFFE standards X509-SVID, SPIFFE_Workload_API and SPIFFE_Workload_Endpoint; the link is how Kubernetes replaces
// several files at once.
package identity
