package supervisor

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// errNoTerminal is returned when nobody has kept a container's terminal: there was no keeper when the supervisor died.
var errNoTerminal = errors.New("its terminal ended with the supervisor before, as there was no keeper")

// takeTerminal makes a container's terminal its output. It takes the master.
func (s *Supervisor) takeTerminal(c *container, master *os.File) error {
	fd, err := unix.FcntlInt(master.Fd(), unix.F_DUPFD_CLOEXEC, 0) // without Go's poller
	master.Close()
	if err == nil {
		c.output, err = s.openTerminal(fd, c.dir, c.log, false)
	}
	return err
}

// reopenTerminal takes up the terminal of a container of the program before, or of a supervisor that has died.
func (s *Supervisor) reopenTerminal(c *container) (*output, error) {
	if h := s.cfg.Handover; h != nil {
		if master, ok := h.terminals[c.id]; ok {
			delete(h.terminals, c.id)
			return s.openTerminal(master, c.dir, c.log, true)
		}
	}
	held := s.recollect(c.id)
	if len(held.Files) == 0 {
		return nil, errNoTerminal
	}
	for _, fd := range held.Files[1:] {
		unix.Close(fd)
	}
	return s.openTerminal(held.Files[0], c.dir, c.log, true)
}

// master gives a copy of the master of the container's terminal, which is the caller's, if it has one that has not ended.
func (c *container) master() (fd int, ok bool) {
	c.output.use(func(fds []int) {
		if len(fds) == 0 || !c.output.terminal {
			return
		}
		var err error
		fd, err = unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 0)
		ok = err == nil
	})
	return fd, ok
}
