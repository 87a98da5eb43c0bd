// Package keymanager keeps this manager's store sealed by the key that the cluster wants: the unlock key while autolock is on,
// else the node's own key file.
//
// It makes no keys: the control API makes unlock keys, and keeps the present one in the cluster object. It runs on every
// manager, whoever leads.
//
//	                       autolock on, or key rotated
//	sealed by key file --------------------------------> sealed by unlock key ---+ rotated
//	        ^                                                    |     ^---------+
//	        +----------------------------------------------------+
//	                       autolock off
//
// A manager that is down meanwhile catches up when it is back: until then its former key opens it.
//
// Each change also gives the store a fresh data key, so that a copy of the disk from before, together with its key then, opens
// nothing that is written since; see store.Reseal.
//
// # Concurrency and errors
//
// Run is the only goroutine. A disk that does not take the new ring is logged and tried again.
package keymanager
