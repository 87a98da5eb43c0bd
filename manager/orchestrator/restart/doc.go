// Package restart decides what follows a live task that ended, and when a task that waits may start.
//
// It is not about how many slots there are (replicated), nor about tasks that somebody told to stop.
//
// It goes by slot:
//
//	live task ended --+-- the policy allows another try ----> old: desired SHUTDOWN; new task, desired READY or RUNNING
//	                  +-- it does not, or a newer live task
//	                      is in the slot already -----------> old: desired SHUTDOWN
//
//	live task, desired READY -- nothing told to stop runs in the slot any more,
//	                            and the delay has passed ----------------------> desired RUNNING
//
// The policy is the one that the task ran under. Condition `any` replaces whatever ended, `on-failure` all but COMPLETE,
// `none` nothing; nothing follows in a job's slot once a task ended well there. The delay counts from when the replacement
// was made; a task whose predecessor did not end by itself, or was on a node that is down, gone or drained, has none. A task that its
// node rejects while it waits is replaced when it would have started.
//
// With an exponential back-off the delay doubles with each task that ends, up to the longest, and starts anew after one that ran for
// the longest delay; up to a quarter of each is left out, by chance, which is the new task's id. How many ended is in the new task
// (Task.restart_count), so neither a change of leaders nor a short history makes a slot forget how often it failed.
//
// Max attempts are counted from the slot's tasks in the store: a replacement is a task whose predecessor, of the same spec
// version, ended by itself, and it counts while it is younger than the window. So the count survives a change of leaders,
// and an update starts it anew. The reaper keeps enough history for that.
//
// Invariant: I5. A task is not started while another one that was told to stop may still run in its slot, nor in a job's slot
// that is done. There is no time limit on the first: only a node that is down or gone is not waited for.
package restart
