// Package reaper forgets tasks, and declares those orphans whose nodes will never speak again.
//
// It stops nothing: it only acts on tasks that have ended, or that never reached a node.
//
// It goes by slot:
//
//	task                                              effect
//	----                                              ------
//	its node was removed, it has not ended            ORPHANED
//	its node has been down for 24 hours, the same     ORPHANED
//	never had a node, desired SHUTDOWN or REMOVE      deleted
//	ended, desired REMOVE                             deleted
//	ended, desired SHUTDOWN, history is too long      the oldest are deleted
//
// A slot's history is as long as the cluster's task history limit, but at least max attempts + 1 tasks, which restart counts,
// and one while an update is under way, which counts failures; and never so short that a slot loses its newest task: that is what says that the slot had its tries, and with which spec.
// A job keeps what ended well in its present iteration. A negative limit keeps everything.
package reaper
