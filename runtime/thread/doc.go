// Package thread runs what changes a thread for good, such as a setns, on a thread that nothing else uses afterwards.
//
// A thread of Go's ends with the goroutine that has locked it, but for the main one: that stays as it was left, and it is the one that
// /proc/self shows, so that the whole process seems to be where only that thread is.
//
// Invariants:
//
//	I1  What is run is never on the main thread.
//	I2  Its thread ends with it, and the Go runtime starts no other one from it.
//
// Source: runtime.LockOSThread, namespaces(7), proc_thread-self(5).
package thread
