package logforward

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Who puts a FIFO in the place of the certificates while they are read, as a container can in its volume, does not hold up the daemon.
func TestReadCA_FIFOInItsPlace(t *testing.T) {
	dir := t.TempDir()
	path, fifo := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "fifo")
	if err := os.WriteFile(path, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for {
			select {
			case <-over:
				return
			default:
			}
			if err := unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, fifo, unix.RENAME_EXCHANGE); err != nil {
				t.Error(err)
				return
			}
		}
	})
	defer swapping.Wait()
	defer close(over)
	for range 20000 {
		done := make(chan error, 1)
		go func() {
			_, err := readCA(path)
			done <- err
		}()
		timer := time.NewTimer(limit)
		select {
		case err := <-done:
			timer.Stop()
			if text := err.Error(); !strings.Contains(text, "is no regular file") && !strings.Contains(text, "no PEM certificate") {
				t.Fatal(err)
			}
		case <-timer.C:
			t.Fatal("reading the certificates waits for a writer of the FIFO")
		}
	}
}
