// Package learnbroker learns which system calls the tasks of a service make, and makes a seccomp profile of them.
//
// It runs on any manager and keeps nothing. All nodes are asked, for new tasks may start on any of them:
//
//	person ==LearnSeccomp==> Broker ==RecordNodeCalls==> agents of all nodes that are not down
//	       <== progress ==     |    <== names so far ==
//	       ==   stop   ==>     |    ==     stop      ==>
//	       <==  result  ==     merges the names of all nodes, narrows the service's profile to them, compiles it
//
// Invariants:
//
//	P1  The profile allows nothing that the service's present one does not, whatever nodes say: their names only choose from it. Without
//	    a present one (seccomp=unconfined), it allows less than that all the same.
//	P2  What is missing is said: nodes that did not answer though tasks of the service are there, and tasks that could not be recorded.
//	P3  When the person goes, every recording ends.
//
// Concurrency: a Broker is safe for concurrent use. A call owns its goroutines, one per node, and waits for them.
package learnbroker
