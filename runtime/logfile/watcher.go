package logfile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// watched are the changes that a reader waits for: lines, and rotations.
const watched = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO

// Watcher sees the changes of many logs by one inotify instance, of which a user has 128 by default (inotify(7)). It is safe for concurrent use.
type Watcher struct {
	file *os.File // constant

	mu sync.Mutex
	// readers are who waits for the changes of a directory, by its number in the kernel. Guarded by mu.
	readers map[int32]map[*subscription]bool
}

// subscription is one reader's wait for changes of one directory.
type subscription struct {
	watcher *Watcher
	number  int32
	changed chan struct{} // has room for one
}

// NewWatcher returns a Watcher that sees nothing before Run. The caller closes it.
func NewWatcher() (*Watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch logs: %w", err)
	}
	return &Watcher{file: os.NewFile(uintptr(fd), "inotify"), readers: map[int32]map[*subscription]bool{}}, nil
}

// Run wakes readers until ctx ends, and then returns nil.
func (w *Watcher) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = w.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	events := make([]byte, 16<<10)
	for {
		n, err := w.file.Read(events)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch logs: %w", err)
		}
		w.dispatch(events[:n])
	}
}

// dispatch wakes whom events are for; all, when the kernel had no room for more events.
func (w *Watcher) dispatch(events []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(events) >= unix.SizeofInotifyEvent {
		number, mask := int32(binary.NativeEndian.Uint32(events)), binary.NativeEndian.Uint32(events[4:])
		size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(events[12:]))
		events = events[min(size, len(events)):]
		if mask&unix.IN_Q_OVERFLOW != 0 {
			for _, readers := range w.readers {
				wake(readers)
			}
			continue
		}
		wake(w.readers[number])
		if mask&unix.IN_IGNORED != 0 { // the directory is gone
			delete(w.readers, number)
		}
	}
}

func wake(readers map[*subscription]bool) {
	for s := range readers {
		select {
		case s.changed <- struct{}{}:
		default: // it was woken already
		}
	}
}

// subscribe begins to watch a directory for a reader.
func (w *Watcher) subscribe(dir string) (*subscription, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	conn, err := w.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &subscription{watcher: w, changed: make(chan struct{}, 1)}
	var number int
	controlErr := conn.Control(func(fd uintptr) { number, err = unix.InotifyAddWatch(int(fd), dir, watched) })
	if err := errors.Join(controlErr, err); err != nil {
		return nil, err
	}
	if s.number = int32(number); w.readers[s.number] == nil {
		w.readers[s.number] = map[*subscription]bool{}
	}
	w.readers[s.number][s] = true
	return s, nil
}

// close ends the wait. The last reader of a directory ends its watch.
func (s *subscription) close() error {
	w := s.watcher
	w.mu.Lock()
	defer w.mu.Unlock()
	readers := w.readers[s.number]
	if !readers[s] {
		return nil // the directory was removed
	}
	if delete(readers, s); len(readers) > 0 {
		return nil
	}
	delete(w.readers, s.number)
	conn, err := w.file.SyscallConn()
	if err != nil {
		return err
	}
	var removeErr error
	err = conn.Control(func(fd uintptr) { _, removeErr = unix.InotifyRmWatch(int(fd), uint32(s.number)) })
	if errors.Is(removeErr, unix.EINVAL) || errors.Is(err, os.ErrClosed) {
		return nil // the kernel has ended it: with the directory, or with the Watcher
	}
	return errors.Join(err, removeErr)
}

// Close ends all watches. Readers that wait are not woken by it.
func (w *Watcher) Close() error { return w.file.Close() }
