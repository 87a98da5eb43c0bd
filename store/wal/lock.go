package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/store/vfs"
)

// How long a lock that is taken is waited for, and how often it is tried. A process that ended while it was starting another one leaves the
// lock to that until its execve(2), see flock(2).
const (
	lockWait  = time.Second
	lockPause = 10 * time.Millisecond
)

// lockDir keeps other processes out of a directory of the operating system, until the result is closed. It is nil in a file
// system that no other process sees.
func lockDir(fsys vfs.FS, dir string) (io.Closer, error) {
	f, err := fsys.OpenOS(dir, os.O_RDONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	for begun := time.Now(); ; time.Sleep(lockPause) {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Since(begun) > lockWait {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = errors.New("another process uses it")
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, errors.Join(err, f.Close()))
	}
	return f, nil
}
