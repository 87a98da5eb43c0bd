// Package keymanager keeps this manager's store sealed by the keys that the cluster wants: the unlock key while autolock is on,
// else the node's own key; and a data key that is not too old.
//
// It makes no unlock keys: the control API makes unlock keys, and keeps the present one in the cluster object. It runs on every
// manager, whoever leads.
//
//	                       autolock on, or key rotated
//	sealed by own key  --------------------------------> sealed by unlock key ---+ rotated
//	        ^                                                    |     ^---------+
//	        +----------------------------------------------------+
//	                       autolock off
//
// A manager that is down meanwhile catches up when it is back: until then its former key opens it.
//
// Each change also gives the store a fresh data key, so that a copy of the disk from before, together with its key then, opens
// nothing that is written since; see store.Reseal.
//
// # Data keys
//
// Each manager has its own, and changes it
//
//   - when people ask: the cluster object counts that (data_key_generation), and the manager notes durably up to which count it
//     has followed;
//   - when it is as old as the cluster's data_key_rotation: the time when it was made is on the manager's disk.
//
// Then it says so to the leader, which keeps it in the node object, for people to see.
//
//   - K1: whether a data key must change is decided from the disk and the cluster object alone, not from how long this process, or
//     the present leader, has been up. (Swarm's rotation starts afresh with each leader, and may never come.)
//   - K2: a rotation that a crash stopped is done again: its old key still counts as the store's.
//
// # Concurrency and errors
//
// Run is the only goroutine. A disk that does not take the new ring is logged and tried again.
package keymanager
