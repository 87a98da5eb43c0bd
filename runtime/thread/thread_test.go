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

// onMain takes what tests call on the main thread. Only while packages are initialised it is certain that the main goroutine is on
// that thread, where it is kept.
var onMain = func() chan func() {
	runtime.LockOSThread()
	return make(chan func())
}()

func TestMain(m *testing.M) {
	code := make(chan int)
	go func() { code <- m.Run() }()
	for {
		select {
		case f := <-onMain:
			f()
		case c := <-code:
			os.Exit(c)
		}
	}
}

// I1
func TestRun_LeavesTheMainThread(t *testing.T) {
	from, id := make(chan int, 1), make(chan int, 1)
	onMain <- func() {
		from <- unix.Gettid()
		runtime.UnlockOSThread() // run itself keeps others off the thread
		defer runtime.LockOSThread()
		run(func() { id <- unix.Gettid() })
	}
	if got := <-from; got != os.Getpid() {
		t.Fatalf("called on thread %d, not on the main one", got)
	}
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
