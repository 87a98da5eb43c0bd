package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/launch"
	"github.com/skep-io/skep/runtime/protocol"
	"github.com/skep-io/skep/runtime/spec"
)

// Handover is what a supervisor passes to the program that takes its place in the same process: the containers are that
// process's children, so nothing else is needed to learn their exit codes on any kernel. What the journal has is not
// passed.
type Handover struct {
	// Program is the path of the next program.
	Program string

	listener  *os.File
	unstarted map[string]unstarted // containers that wait for Start
	terminals map[string]int       // masters of the containers' terminals
	execs     []child              // processes of execs, to be reaped
}

// unstarted is what starting a container takes.
type unstarted struct {
	Control int // a descriptor
	Rlimits []spec.Rlimit

	file *os.File
}

// child is a process that is this one's child.
type child struct {
	Pid     int
	Started uint64
}

// handoverState is the text of a Handover.
type handoverState struct {
	Listener  int
	Unstarted map[string]unstarted
	Terminals map[string]int `json:",omitempty"`
	Execs     []child
}

// maxHandover bounds the text of a Handover: a hundred bytes for each of the most containers there can be.
const maxHandover = 4 << 20

// Pass makes the descriptors outlive execve and gives that of a memory file that describes the rest, for Receive. After an
// execve that failed, Keep undoes it.
func (h *Handover) Pass() (int, error) {
	state := handoverState{Listener: int(h.listener.Fd()), Unstarted: h.unstarted, Terminals: h.terminals, Execs: h.execs}
	text, err := json.Marshal(state)
	if err != nil {
		return -1, fmt.Errorf("pass on to the next program: %w", err)
	}
	fd, err := unix.MemfdCreate("handover", 0)
	if err != nil {
		return -1, fmt.Errorf("pass on to the next program: %w", err)
	}
	if _, err := unix.Pwrite(fd, text, 0); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("pass on to the next program: %w", err)
	}
	return fd, h.inherit(0)
}

// Keep takes back the memory file of Pass.
func (h *Handover) Keep(fd int) error {
	unix.Close(fd)
	return h.inherit(unix.FD_CLOEXEC)
}

func (h *Handover) inherit(flag int) error {
	fds := []int{int(h.listener.Fd())}
	for _, u := range h.unstarted {
		fds = append(fds, u.Control)
	}
	for _, fd := range h.terminals {
		fds = append(fds, fd)
	}
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flag); err != nil {
			return fmt.Errorf("pass on to the next program: %w", err)
		}
	}
	return nil
}

// Receive takes what the program before this one passed, by the descriptor that its Pass gave. It closes that.
func Receive(fd int) (*Handover, error) {
	f := os.NewFile(uintptr(fd), "handover")
	defer f.Close()
	var state handoverState
	err := json.NewDecoder(io.NewSectionReader(f, 0, maxHandover)).Decode(&state)
	if err != nil {
		return nil, fmt.Errorf("take over from the program before: %w", err)
	}
	h := &Handover{
		listener: os.NewFile(uintptr(state.Listener), "listener"), unstarted: state.Unstarted, terminals: state.Terminals,
		execs: state.Execs,
	}
	for id, u := range h.unstarted {
		u.file = os.NewFile(uintptr(u.Control), "control")
		h.unstarted[id] = u
	}
	return h, h.inherit(unix.FD_CLOEXEC)
}

// close closes what nobody took.
func (h *Handover) close() {
	if h == nil {
		return
	}
	if h.listener != nil {
		h.listener.Close()
	}
	for _, u := range h.unstarted {
		u.file.Close()
	}
	for _, fd := range h.terminals {
		unix.Close(fd)
	}
}

// listen gives the listener that was handed over, or a new one.
func (s *Supervisor) listen() (*net.UnixListener, error) {
	h := s.cfg.Handover
	if h == nil || h.listener == nil {
		return listen(s.cfg.Socket)
	}
	l, err := net.FileListener(h.listener)
	if err != nil {
		return nil, fmt.Errorf("take over the socket: %w", err)
	}
	h.listener.Close()
	h.listener = nil
	unixListener, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("take over the socket: it is a %s", l.Addr().Network()), l.Close())
	}
	unixListener.SetUnlinkOnClose(true)
	return unixListener, nil
}

// startable gives back what it takes to start a container that the program before had created, and reports whether that
// was handed over.
func (s *Supervisor) startable(id string, p *launch.Process) bool {
	h := s.cfg.Handover
	if h == nil {
		return false
	}
	u, ok := h.unstarted[id]
	if !ok {
		return false
	}
	delete(h.unstarted, id)
	p.Restore(u.file, u.Rlimits)
	return true
}

// reapExecs waits for the processes of execs of the program before, whose clients are gone.
func (s *Supervisor) reapExecs() {
	if s.cfg.Handover == nil {
		return
	}
	for _, e := range s.cfg.Handover.execs {
		p, err := launch.Adopt(e.Pid, e.Started)
		if err != nil {
			continue // it has ended, and was waited for
		}
		s.background.Go(func() {
			_, _ = p.Wait() // nobody asks how it ended
			p.Close()
		})
	}
	s.cfg.Handover.execs = nil
}

// programTime bounds the test of a program that is to take over: it prints its version and ends.
const programTime = 10 * time.Second

// upgrade has Run end and hand over to the program at path, if that can be run.
func (v *server) upgrade(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("%w: %.128q is not an absolute path", protocol.ErrInvalid, path)
	}
	ctx, cancel := context.WithTimeout(context.Background(), programTime)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "version").Output()
	if err != nil || !strings.HasPrefix(string(out), "skep-runtime ") {
		return fmt.Errorf("%w: %s is not a supervisor that runs here: it says %.64q, %v", protocol.ErrInvalid, path, out, err)
	}
	v.Supervisor.mu.Lock()
	defer v.Supervisor.mu.Unlock()
	if v.next == nil {
		v.next = &Handover{Program: path}
		v.logger.Info("supervisor makes way for another program", "program", path)
		v.stop()
	}
	return nil
}

// Next is what Run handed over, or nil if it ended for another reason. The caller runs Next().Program in this process.
func (s *Supervisor) Next() *Handover {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

// handOver takes from the containers what the next program needs, before they are halted.
func (s *Supervisor) handOver(h *Handover, listener *os.File) {
	h.listener = listener
	h.unstarted, h.terminals = make(map[string]unstarted), make(map[string]int)
	for _, c := range s.all() {
		if c.process == nil {
			continue
		}
		for _, pid := range c.execs.pids() {
			if started, err := launch.StartTime(pid); err == nil {
				h.execs = append(h.execs, child{Pid: pid, Started: started})
			}
		}
		if master, ok := c.master(); ok {
			h.terminals[c.id] = master
		}
		file, rlimits, err := c.process.Unstarted()
		if err != nil {
			s.logger.Error("container will end before it is started", "container", c.id, "error", err)
		}
		if file != nil {
			h.unstarted[c.id] = unstarted{Control: int(file.Fd()), Rlimits: rlimits, file: file}
		}
	}
}
