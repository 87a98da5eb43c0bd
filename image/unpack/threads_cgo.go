//go:build cgo

package unpack

import "syscall"

// onThreads makes a system call on this thread, the one that applies: with cgo
// the Go runtime does not know all threads. Skep is built without cgo; only
// tests with the race detector are not, and they apply on this thread alone.
//
//go:uintptrescapes
func onThreads(trap, a1, a2 uintptr) error {
	if _, _, errno := syscall.RawSyscall(trap, a1, a2, 0); errno != 0 {
		return errno
	}
	return nil
}
