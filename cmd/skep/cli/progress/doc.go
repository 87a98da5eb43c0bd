// Package progress shows how a service converges, until it has or nobody waits any more.
//
// Tracker decides: what the lines say, whether the service is stable, when to look again. Run feeds it with snapshots and
// the time, and hands its lines to a Display. Neither knows the connection, nor changes anything.
//
//	                  +--------------- a task is missing ---------------+
//	                  v                                                 |
//	waiting --all tasks run--> verifying --monitor over, and the update is, too--> converged, or ErrStopped when it went back
//	   |                                              |
//	   +------ ctx ends: ErrInterrupted --------------+
//	   +------ the update is paused: ErrStopped ------+
//	   |
//	   +--every task ended and none follows--> ending --monitor over--> converged, or ErrEnded when one failed
//	                  ^                           |
//	                  +------- a task follows ----+
//
// A job is done as soon as as many of its slots ended well as are to, and has failed when nothing of it runs any more before that.
//
// Invariants:
//
//	I1  A snapshot older than the version that was written counts for nothing.
//	I2  A task of an older spec never counts as running.
//	I3  The service is converged or ended only after it was so for the monitor period without a break.
//
// Concurrency: a Tracker and a Display belong to one Run; a Board may have several.
package progress
