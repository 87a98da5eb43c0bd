package executor

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// witness is a second source of exit codes, for the case that the container supervisor is not there when a container ends.
// From kernel 6.15 on, whoever holds a pidfd since before learns how the process ended, once it was reaped.
type witness struct {
	mu     sync.Mutex
	pidfds map[string]int // by the id of the container; guarded by mu
}

func newWitness() *witness { return &witness{pidfds: map[string]int{}} }

// watch holds on to the process of a container. Without that, which may fail, nothing is learned.
func (w *witness) watch(id string, pid int) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if old, ok := w.pidfds[id]; ok {
		unix.Close(old)
	}
	w.pidfds[id] = fd
}

func (w *witness) watches(id string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	_, ok := w.pidfds[id]
	return ok
}

// forget lets go of a container.
func (w *witness) forget(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if fd, ok := w.pidfds[id]; ok {
		unix.Close(fd)
		delete(w.pidfds, id)
	}
}

// Whoever inherits a process reaps it at once, unless it is busy.
const (
	reapTries = 20
	reapPause = 50 * time.Millisecond
)

// exit returns the exit code of a container that has ended, and whether it is known.
func (w *witness) exit(ctx context.Context, id string) (code int, known bool) {
	for range reapTries {
		status, ok := w.ask(id)
		switch {
		case ok && status.Signaled():
			return 128 + int(status.Signal()), true
		case ok:
			return status.ExitStatus(), true
		case !w.watches(id):
			return 0, false
		}
		select {
		case <-time.After(reapPause):
		case <-ctx.Done():
			return 0, false
		}
	}
	return 0, false
}

// ask asks the kernel.
func (w *witness) ask(id string) (unix.WaitStatus, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	fd, ok := w.pidfds[id]
	if !ok {
		return 0, false
	}
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(fd, &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return 0, false
	}
	return unix.WaitStatus(info.Exit_code), true
}
