package keeper

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/protocol"
)

// ErrInUse is returned when the root directory has a keeper.
var ErrInUse = errors.New("another keeper is running")

// maxConnections is more than there ever are: the daemon's and the supervisor's.
const maxConnections = 32

// entry is what is kept of a container.
type entry struct {
	owner  *net.UnixConn // who named it last
	pid    int
	exited bool
	status unix.WaitStatus
	files  []int
}

// request is a message that came on a connection, or its end, if message is nil.
type request struct {
	conn    *net.UnixConn
	message *message
	files   []int
}

// Keeper keeps what supervisors leave. Make it with New, run it with Run once, and then Close it.
type Keeper struct {
	// Constant after New.
	logger   *slog.Logger
	lock     *os.File
	listener *net.UnixListener
	null     *os.File
	chld     chan os.Signal
	accepted chan *net.UnixConn
	requests chan request

	// Owned by Run.
	entries     map[string]*entry
	conns       map[*net.UnixConn]bool
	supervisors map[int]bool // processes that were started
	childless   bool
	visited     bool // there was a connection once
}

// New prepares a keeper for the supervisors with this root directory: from here on, this process inherits children.
func New(root string, logger *slog.Logger) (*Keeper, error) {
	k := &Keeper{
		logger: logger, chld: make(chan os.Signal, 1), accepted: make(chan *net.UnixConn), requests: make(chan request),
		entries: make(map[string]*entry), conns: make(map[*net.UnixConn]bool), supervisors: make(map[int]bool),
	}
	if err := k.prepare(root); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
}

func (k *Keeper) prepare(root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return fmt.Errorf("make root directory: %w", err)
	}
	var err error
	if k.lock, err = os.OpenFile(filepath.Join(root, "keeper.lock"), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return fmt.Errorf("lock root directory: %w", err)
	}
	// A record lock is the process's own: supervisors that are forked do not get it.
	whole := &unix.Flock_t{Type: unix.F_WRLCK, Whence: unix.SEEK_SET}
	if err := unix.FcntlFlock(k.lock.Fd(), unix.F_SETLK, whole); err != nil {
		return fmt.Errorf("%w: %s is in use", ErrInUse, root)
	}
	if k.null, err = os.OpenFile(os.DevNull, os.O_RDWR, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("inherit children: %w", err)
	}
	path := Socket(root)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replace socket: %w", err)
	}
	if k.listener, err = net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"}); err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return fmt.Errorf("protect socket: %w", err)
	}
	return nil
}

// Close gives up what New took. Call it after Run has returned.
func (k *Keeper) Close() {
	if k.listener != nil {
		k.listener.Close()
	}
	for _, f := range []*os.File{k.null, k.lock} {
		if f != nil {
			f.Close()
		}
	}
}

// Run keeps until there is nothing left to keep and nobody to keep it for (I5).
func (k *Keeper) Run() error {
	signal.Notify(k.chld, unix.SIGCHLD)
	defer signal.Stop(k.chld)
	failed := make(chan error, 1)
	go func() { failed <- k.accept() }() // ends with the process
	for {
		select {
		case <-k.chld:
		case conn := <-k.accepted:
			k.take(conn)
		case r := <-k.requests:
			k.reap() // so that what is answered is what was true when it was asked
			k.serve(r)
		case err := <-failed:
			return fmt.Errorf("accept: %w", err)
		}
		k.reap()
		if k.visited && k.childless && len(k.conns) == 0 && len(k.entries) == 0 {
			k.logger.Info("keeper ends: there is nothing to keep")
			return nil
		}
	}
}

func (k *Keeper) accept() error {
	for {
		conn, err := k.listener.AcceptUnix()
		if err != nil {
			return err
		}
		k.accepted <- conn
	}
}

// take begins to serve a connection, if its peer may (I4).
func (k *Keeper) take(conn *net.UnixConn) {
	if err := protocol.Allowed(conn); err != nil || len(k.conns) >= maxConnections {
		k.logger.Warn("client refused", "error", err, "connections", len(k.conns))
		conn.Close()
		return
	}
	k.visited = true
	k.conns[conn] = true
	go func() { // ends with the connection
		buffer := make([]byte, maxMessage)
		for {
			m := &message{}
			files, err := receive(conn, buffer, m)
			if err != nil {
				if errors.Is(err, ErrMessage) {
					k.logger.Error("message not understood", "error", err)
					continue // it was one packet, and nobody may lose what is kept for it
				}
				k.requests <- request{conn: conn}
				return
			}
			k.requests <- request{conn: conn, message: m, files: files}
		}
	}()
}

// reap waits for every child that has ended (I1, I2).
func (k *Keeper) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		k.childless = err != nil // ECHILD
		if pid <= 0 {
			return
		}
		if k.supervisors[pid] {
			delete(k.supervisors, pid)
			k.logger.Info("supervisor ended", "pid", pid, "status", status.ExitStatus(), "signal", int(status.Signal()))
		}
		for _, e := range k.entries {
			if e.pid == pid && !e.exited {
				e.exited, e.status = true, status
			}
		}
	}
}

// serve carries out a message.
func (k *Keeper) serve(r request) {
	if r.message == nil {
		delete(k.conns, r.conn)
		r.conn.Close()
		return
	}
	switch m := r.message; m.Op {
	case opStart:
		defer closeAll(r.files)
		pid, err := k.start(m, r.files)
		a := answer{Pid: pid}
		if err != nil {
			a.Error = err.Error()
		}
		k.reply(r.conn, a, nil)
	case opHold:
		k.hold(r)
	case opAsk:
		closeAll(r.files)
		e := k.entries[m.Name]
		if e == nil {
			k.reply(r.conn, answer{}, nil)
			return
		}
		e.owner = r.conn
		k.reply(r.conn, answer{Held: true, Exited: e.exited, Status: uint32(e.status)}, e.files)
	case opForget:
		closeAll(r.files)
		k.forget(m.Name)
	case opSettle:
		closeAll(r.files)
		for name, e := range k.entries {
			if e.owner != r.conn {
				k.forget(name)
			}
		}
	default: // of a later version
		closeAll(r.files)
		k.reply(r.conn, answer{Error: fmt.Sprintf("the keeper does not know %.32q", m.Op)}, nil)
	}
}

// replyTime bounds the sending of an answer to who does not read.
const replyTime = time.Second

// reply answers. Who does not read it is cut off.
func (k *Keeper) reply(conn *net.UnixConn, a answer, files []int) {
	err := conn.SetWriteDeadline(time.Now().Add(replyTime))
	if err == nil {
		err = send(conn, a, files)
	}
	if err != nil {
		k.logger.Warn("answer not sent", "error", err)
		conn.Close() // its reader tells
	}
}

// hold keeps a container (I3).
func (k *Keeper) hold(r request) {
	m, e := r.message, k.entries[r.message.Name]
	if m.Name == "" || len(m.Name) > maxName || m.Pid <= 0 || e == nil && len(k.entries) >= maxHeld {
		closeAll(r.files)
		k.logger.Error("container not held", "name", m.Name, "pid", m.Pid, "held", len(k.entries))
		return
	}
	if e == nil {
		e = &entry{}
		k.entries[m.Name] = e
	}
	if e.pid != m.Pid {
		e.pid, e.exited = m.Pid, false
	}
	closeAll(e.files)
	e.owner, e.files = r.conn, r.files
}

func (k *Keeper) forget(name string) {
	if e := k.entries[name]; e != nil {
		closeAll(e.files)
		delete(k.entries, name)
	}
}

// start runs a supervisor in a session of its own.
func (k *Keeper) start(m *message, files []int) (int, error) {
	path := "/proc/self/exe"
	if m.Program && len(files) > 0 {
		path, files = fmt.Sprintf("/proc/self/fd/%d", files[0]), files[1:]
	}
	if len(m.Args) == 0 || len(files) != 1 {
		return 0, fmt.Errorf("%w: a supervisor needs arguments and a log", ErrMessage)
	}
	log := uintptr(files[0])
	pid, err := syscall.ForkExec(path, m.Args, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{k.null.Fd(), log, log}, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("run supervisor: %w", err)
	}
	k.supervisors[pid] = true
	k.logger.Info("supervisor started", "pid", pid)
	return pid, nil
}
