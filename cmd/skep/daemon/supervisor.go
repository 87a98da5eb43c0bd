package daemon

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/client"
)

// supervisorPatience is how long a new supervisor may take until it answers: it only makes a socket and reads a journal.
const supervisorPatience = 10 * time.Second

// supervisor is the skep-runtime process of this node. It is nobody's child after this daemon ends, so containers outlive the daemon.
type supervisor struct {
	program      string
	dir          string
	cgroupParent string
	logger       *slog.Logger
}

func (s supervisor) socket() string { return filepath.Join(s.dir, "runtime.sock") }

// log is the file of what the supervisor prints.
func (s supervisor) log() string { return filepath.Join(s.dir, "supervisor.log") }

// lastWords is the last line of the log, where a supervisor that can't start says why.
func (s supervisor) lastWords() string {
	text, err := os.ReadFile(s.log())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}

// connect returns a connection to the supervisor that runs, or to a new one. One that runs another program than this
// daemon was given replaces itself, under its containers, or is replaced if it is too old to.
func (s supervisor) connect(ctx context.Context) (*client.Client, error) {
	kept, err := s.meetKeeper(ctx) // before there is a supervisor, which looks for it
	if err != nil {
		s.logger.Error("no keeper: exit codes of containers may be lost with the container supervisor", "error", err)
	} else {
		defer kept.Close()
	}
	conn, err := client.Dial(ctx, s.socket())
	if err != nil {
		return s.launch(ctx)
	}
	s.logger.Info("found the container supervisor running")
	err = s.upgrade(ctx, conn)
	if errors.Is(err, client.ErrInvalid) { // it knows no upgrade, nor all that this version asks for
		return s.replace(ctx, conn)
	}
	if err != nil { // the old one does its work, too
		s.logger.Error("the container supervisor was not upgraded", "program", s.program, "error", err)
	}
	return conn, nil
}

// upgrade has the supervisor run this daemon's program, if it runs another.
func (s supervisor) upgrade(ctx context.Context, conn *client.Client) error {
	pid, err := conn.Peer(ctx)
	if err != nil {
		return err
	}
	program, _, err := s.choose() // with --runtime runc that is not the supervisor
	if err != nil {
		return err
	}
	same, err := sameContent(fmt.Sprintf("/proc/%d/exe", pid), program)
	if err != nil || same {
		return err
	}
	if program, err = filepath.Abs(program); err != nil {
		return err
	}
	if err := conn.Upgrade(ctx, program); err != nil {
		return err
	}
	s.logger.Info("upgraded the container supervisor", "program", program)
	return nil
}

// replace ends a supervisor and starts another, which takes over its containers. Nobody is their parent then: how they end only a
// kernel from 6.15 on says.
func (s supervisor) replace(ctx context.Context, conn *client.Client) (*client.Client, error) {
	pid, err := conn.Peer(ctx)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(terminate(pid), conn.Close()); err != nil {
		return nil, fmt.Errorf("replace the container supervisor of an earlier version, process %d: %w", pid, err)
	}
	s.logger.Info("replaced the container supervisor of an earlier version", "program", s.program)
	return s.launch(ctx)
}

// terminate asks a process to end, and waits until it has.
func terminate(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil {
		return err
	}
	ended, err := awaitEnd(fd, int(supervisorPatience.Milliseconds()))
	if err == nil && !ended {
		err = fmt.Errorf("it did not end within %v", supervisorPatience)
	}
	return err
}

// awaitEnd waits for the end of the process that a pidfd names, and says whether it has ended. Below 0 there is no limit.
func awaitEnd(pidfd, milliseconds int) (bool, error) {
	end := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(end, milliseconds)
		if !errors.Is(err, unix.EINTR) {
			return n > 0, err
		}
	}
}

// sameContent says whether two files hold the same bytes.
func sameContent(a, b string) (bool, error) {
	var sums [2][sha256.Size]byte
	for i, path := range []string{a, b} {
		f, err := os.Open(path)
		if err != nil {
			return false, err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		if err := errors.Join(err, f.Close()); err != nil {
			return false, err
		}
		h.Sum(sums[i][:0])
	}
	return sums[0] == sums[1], nil
}

// launch starts a supervisor and returns a connection to it.
func (s supervisor) launch(ctx context.Context) (*client.Client, error) {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the supervisor's directory: %w", err)
	}
	ended, err := s.start(ctx)
	if err != nil {
		return nil, err
	}
	return await(ctx, s, "supervisor", ended, func() (*client.Client, error) { return client.Dial(ctx, s.socket()) })
}

// relaunchPause is how long after a failure a supervisor is started again.
const relaunchPause = time.Second

// keep starts a supervisor whenever there is none, until ctx ends. The new one takes over the containers of the one before.
func (s supervisor) keep(ctx context.Context, conn *client.Client) {
	for {
		conn.Gone(ctx)
		if ctx.Err() != nil {
			return
		}
		again, err := client.Dial(ctx, s.socket()) // it may have made way for another program
		if err != nil {
			s.logger.Warn("the container supervisor ended, starting another")
			again, err = s.launch(ctx)
		}
		if err == nil {
			err = again.Close()
		}
		if err == nil {
			continue
		}
		s.logger.Error("no container supervisor", "error", err)
		select {
		case <-time.After(relaunchPause):
		case <-ctx.Done():
		}
	}
}

// start starts a supervisor, below the keeper if there is one. The channel gets its end, if it ends before this daemon.
func (s supervisor) start(ctx context.Context) (<-chan error, error) {
	program, more, err := s.choose()
	if err != nil {
		return nil, err
	}
	args := append([]string{"supervise", "--root", s.dir, "--socket", s.socket(), "--cgroup-parent", s.cgroupParent}, more...)
	conn, err := s.meetKeeper(ctx)
	if err == nil {
		defer conn.Close()
		var ended <-chan error
		if ended, err = s.startBelow(conn, program, args); err == nil {
			return ended, nil
		}
	}
	s.logger.Error("the container supervisor has no keeper: exit codes of containers may be lost with it", "error", err)
	log, err := s.openLog()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	return run(exec.Command(program, args...), log)
}

func unstartable(program string, err error) error {
	return fmt.Errorf("start the container supervisor %s: %w: install skep-runtime beside skep, or name it with --runtime", program, err)
}

// choose gives the supervisor's program, and its arguments that say what creates containers: skep-runtime itself, or
// another program with the command line of an OCI runtime.
func (s supervisor) choose() (program string, args []string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), supervisorPatience)
	defer cancel()
	said, err := exec.CommandContext(ctx, s.program, "--version").Output()
	if err != nil {
		return "", nil, unstartable(s.program, err)
	}
	if bytes.HasPrefix(said, []byte("skep-runtime ")) {
		return s.program, nil, nil
	}
	first, _, _ := strings.Cut(string(said), "\n")
	s.logger.Warn("containers are created by another runtime than Skep's", "runtime", s.program, "version", first)
	return beside("skep-runtime"), []string{"--runtime", s.program}, nil
}

// await returns a connection once the process answers that was started, or says why it does not.
func await[T any](ctx context.Context, s supervisor, what string, ended <-chan error, dial func() (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, supervisorPatience, errors.New("it did not answer in time"))
	defer cancel()
	const period = 5 * time.Millisecond
	var none T
	for {
		if conn, err := dial(); err == nil {
			return conn, nil
		}
		select {
		case err := <-ended:
			return none, fmt.Errorf("the container %s ended (%w): %s; see %s", what, err, s.lastWords(), s.log())
		case <-ctx.Done():
			return none, fmt.Errorf("wait for the container %s: %w: see %s", what, context.Cause(ctx), s.log())
		case <-time.After(period):
		}
	}
}
