package thread

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// onMain calls f on the main thread. It has every other one that is idle locked until the main one is left.
func onMain(t *testing.T, f func()) {
	t.Helper()
	stop, done := make(chan struct{}), make(chan struct{})
	defer close(stop)
	for range 1000 {
		main := make(chan bool)
		go func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if unix.Gettid() != os.Getpid() {
				main <- false
				<-stop
				return
			}
			main <- true
			f()
			close(done)
		}()
		if <-main {
			<-done
			return
		}
	}
	t.Fatal("no goroutine came to be on the main thread")
}

// I1
func TestRun_LeavesTheMainThread(t *testing.T) {
	id := make(chan int, 1)
	onMain(t, func() { run(func() { id <- unix.Gettid() }) })
	if <-id == os.Getpid() {
		t.Error("what changes a thread was run on the main one")
	}
}

// I2
func TestGo_EndsTheThread(t *testing.T) {
	id := make(chan int)
	Go(func() { id <- unix.Gettid() })
	path := fmt.Sprintf("/proc/self/task/%d", <-id)
	for range 1 << 20 {
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%s is still there", path)
}
