package supervisor

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// poller watches many descriptors with one goroutine. A container has four that are seldom ready: a goroutine with a
// stack and a buffer for each would cost more memory than all the rest that is known of it.
type poller struct {
	epoll *os.File

	mu      sync.Mutex // guards all below
	watches map[int32]*watch
	last    int32
}

// watch is one descriptor that a poller watches.
type watch struct {
	poller *poller
	number int32
	fd     int
	// ready is called when the descriptor can be read or has ended, never twice at once, and again until it gives false.
	ready func() bool

	mu     sync.Mutex // held while ready runs
	closed bool
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch descriptors: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that waiting for it holds no thread
		unix.Close(fd)
		return nil, fmt.Errorf("watch descriptors: %w", err)
	}
	return &poller{epoll: os.NewFile(uintptr(fd), "epoll"), watches: make(map[int32]*watch)}, nil
}

// pollBatch is how many descriptors are taken at once.
const pollBatch = 64

// run calls what is ready until close.
func (p *poller) run() {
	conn, err := p.epoll.SyscallConn()
	if err != nil {
		return // closed
	}
	events := make([]unix.EpollEvent, pollBatch)
	for {
		n := 0
		err := conn.Read(func(fd uintptr) bool {
			// What is ready stays so until it was taken: an interrupted call loses nothing.
			n, _ = unix.EpollWait(int(fd), events, 0)
			return n > 0
		})
		if err != nil {
			return // closed
		}
		for _, e := range events[:n] {
			p.mu.Lock()
			w := p.watches[e.Fd]
			p.mu.Unlock()
			if w != nil {
				go w.fire() // ends when nothing is ready any more; close waits for it
			}
		}
	}
}

// close ends run.
func (p *poller) close() { p.epoll.Close() }

// add begins to watch a descriptor, which stays the caller's and must be open until the watch is closed.
func (p *poller) add(fd int, ready func() bool) (*watch, error) {
	p.mu.Lock()
	p.last++
	w := &watch{poller: p, number: p.last, fd: fd, ready: ready}
	p.watches[w.number] = w
	p.mu.Unlock()
	if err := w.control(unix.EPOLL_CTL_ADD); err != nil {
		w.forget()
		return nil, fmt.Errorf("watch a descriptor: %w", err)
	}
	return w, nil
}

// addFile is add for a file.
func (p *poller) addFile(f syscall.Conn, ready func() bool) (*watch, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var w *watch
	var failed error
	err = conn.Control(func(fd uintptr) { w, failed = p.add(int(fd), ready) })
	return w, errors.Join(err, failed)
}

// control tells the kernel to report the descriptor once more.
func (w *watch) control(op int) error {
	// Fd in the event is only a label; the kernel gives it back.
	event := &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLONESHOT, Fd: w.number}
	conn, err := w.poller.epoll.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = conn.Control(func(epoll uintptr) { failed = unix.EpollCtl(int(epoll), op, w.fd, event) })
	return errors.Join(err, failed)
}

// fire calls ready, if the watch is not closed, and has the kernel report the descriptor again if ready says so.
func (w *watch) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || !w.ready() {
		return
	}
	// It fails only when the poller is closed, and then nothing is watched any more.
	_ = w.control(unix.EPOLL_CTL_MOD)
}

// close ends the watch: when it returns, ready does not run and will not be called. It must not be called by ready, and
// may be called for nil and again.
func (w *watch) close() {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.closed = true
	w.forget()
	// It fails only when the poller is closed.
	_ = w.control(unix.EPOLL_CTL_DEL)
}

func (w *watch) forget() {
	w.poller.mu.Lock()
	defer w.poller.mu.Unlock()
	delete(w.poller.watches, w.number)
}
