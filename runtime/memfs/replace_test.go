package memfs

import (
	"fmt"
	"os"
	"syscall"
	"testing"
)

// TestReplace_LetsOthersFork: a container shares the file system, and can have it wait; the supervisor must go on starting programs.
func TestReplace_LetsOthersFork(t *testing.T) {
	f := newFS(t, 100)
	if err := f.Write("key", []byte("old"), 0o400, 0, 0); err != nil {
		t.Fatal(err)
	}
	again, err := Reopen(attached(t, f))
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	done := make(chan error, 1)
	syscall.ForkLock.Lock()
	go func() { done <- again.Replace("key", []byte("new"), 0o400, 0, 0) }()
	err = <-done
	syscall.ForkLock.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(fmt.Sprintf("/proc/self/fd/%d/key", f.FD())); err != nil || string(got) != "new" {
		t.Errorf("content %q, %v", got, err)
	}
}

// attached gives the root of a file system where it is attached.
func attached(t *testing.T, f *FS) int {
	t.Helper()
	dir := t.TempDir()
	if err := f.Attach(dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return f.FD()
}
