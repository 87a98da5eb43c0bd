// Package events tells people what happens in the swarm, as it happens and from a place in the past on.
//
// It runs on every manager and asks nobody: each event is derived from one change of the store, whose order and contents are the same on
// all managers. It is no store of its own: what it keeps is in memory, and begins when the manager does.
//
//	store's changes --> derivation --> ring (the last ones) --> a reader per watch --> filter --> person
//	                                   ^ bounded                ^ a number: its place in the ring
//
// Invariants:
//
//	V1  A watch gets every event after its beginning that its filters let pass, in order and once; or an error that says that it does not.
//	V2  A watch costs no memory while it waits or is slow: its place is a number, and the ring goes on without it.
//	V3  An event has names, ids, states and labels; never a value of a secret, a variable or an argument.
//	V4  A cursor names the same event on all managers. Events of leadership are an exception: who leads is not in the log, so each manager
//	    notes it where it learns of it.
//	V5  Who may not list secrets learns of none by events.
//
// Concurrency: a Log is safe for concurrent use. Run derives events, alone; a watch runs in its caller's goroutine.
//
// Errors: fault.Exhausted for a place that is not kept any more; fault.Invalid for one that can't be; fault.PermissionDenied
// for who asks for events that are not for the caller.
package events
