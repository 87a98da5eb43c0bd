//go:build !cgo

package unpack

import "syscall"

// onThreads makes a system call on every thread of the process: credentials
// belong to threads.
//
//go:uintptrescapes
func onThreads(trap, a1, a2 uintptr) error {
	if _, _, errno := syscall.AllThreadsSyscall(trap, a1, a2, 0); errno != 0 {
		return errno
	}
	return nil
}
