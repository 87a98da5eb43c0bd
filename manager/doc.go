// Package manager joins the parts of a manager: the services that it offers, and the loops that it runs while it leads.
//
// It only wires. What a part does is said in the part's package; no two of them import each other, and what one of them did,
// the next sees in the store.
//
// # Life
//
//	New --> Register, Interceptor --> Run: store, dispatcher, key manager -----------------------> store stops
//	                                         |                                         ^ ctx ends:
//	                                         | gains leadership                        | loops end, another
//	                                         v                                         | manager is made to lead
//	                                       loops of one tenure ---------- loses it ----+
//	                                         ^                              |
//	                                         +------------------------------+
//
// The loops of a tenure start when the store leads and has applied all writes of former leaders, and all of them have ended
// before those of the next tenure start. Each derives its work from the store alone, so nothing is handed over.
//
// # Invariants
//
//   - M1: a loop runs only while this manager leads, as far as it knows; the store refuses the writes of one that is mistaken.
//   - M2: a manager that is stopped hands leadership over first, so that the others need no election.
//
// # Concurrency
//
// Register and Interceptor are called before serving, Run once. Run owns every goroutine that the manager starts.
//
// # Errors
//
// Run returns store.ErrRemoved when this manager was removed from the group: it is to go on as a worker.
package manager
