package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Go starts f on a thread that ends with it, and does not wait for f.
func Go(f func()) {
	go run(f)
}

// run runs f on the thread that it is on, which the caller's goroutine must end with, or starts it on another one if this is the main one.
func run(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() { // I1
		f()
		return // and never unlocks it: I2
	}
	locked := make(chan struct{})
	go func() {
		runtime.LockOSThread() // not the main one, which is locked until this is done
		close(locked)
		f()
	}()
	<-locked
	runtime.UnlockOSThread()
}
