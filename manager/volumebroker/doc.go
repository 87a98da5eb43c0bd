// Package volumebroker makes, lists and removes the volumes of nodes for people.
//
// It runs on any manager and keeps nothing: what volumes there are, their nodes know.
//
//	person --ListVolumes--> Broker --ListNodeVolumes--> agents of all nodes, a few at a time
//	person --CreateVolume, RemoveVolume--> Broker --the same--> the agent of one node
//	                                          +--> audit log: who, which volume, on which node
//
// Invariants:
//
//	W1  Volumes of one name on several nodes are several volumes: what changes one is told its node, or there is one only.
//	W2  Nodes that don't answer are named, and where it matters what they have, nothing is changed.
//	W3  What a node says counts for its own volumes only, and takes no more room than a few megabytes.
//
// Concurrency: a Broker is safe for concurrent use. A call owns its goroutines, one per node that is asked, and waits for them.
//
// Errors: fault.NotFound, fault.Invalid for names that are none or that several have, fault.Precondition for a volume in use,
// fault.Unavailable for nodes that don't answer.
package volumebroker
