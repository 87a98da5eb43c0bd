package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/runtime/keeper"
)

// meetKeeper returns a connection to the keeper of this node's supervisors, or to a new one.
func (s supervisor) meetKeeper(ctx context.Context) (*keeper.Client, error) {
	if conn, err := keeper.Dial(ctx, keeper.Socket(s.dir)); err == nil {
		return conn, nil
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the supervisor's directory: %w", err)
	}
	ended, err := s.startKeeper()
	if err != nil {
		return nil, err
	}
	return await(ctx, s, "keeper", ended, func() (*keeper.Client, error) { return keeper.Dial(ctx, keeper.Socket(s.dir)) })
}

func (s supervisor) startKeeper() (<-chan error, error) {
	program, _, err := s.choose()
	if err != nil {
		return nil, err
	}
	log, err := s.openLog()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	return run(exec.Command(program, "keep", "--root", s.dir), log)
}

// openLog opens the file of what the keeper and its supervisors print.
func (s supervisor) openLog() (*os.File, error) {
	log, err := os.OpenFile(s.log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the supervisor's log: %w", err)
	}
	return log, nil
}

// run starts a process that outlives this daemon: in a session of its own, it holds no folder of the one who started it, and does
// not speak to the service manager for it. The channel gets its end, if it ends before this daemon.
func run(process *exec.Cmd, log *os.File) (<-chan error, error) {
	process.Stdout, process.Stderr = log, log
	process.Dir = "/"
	process.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, notifyVariable+"=") })
	process.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := process.Start(); err != nil {
		return nil, unstartable(process.Path, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	return ended, nil
}

// startBelow has the keeper start a supervisor, so that it inherits the containers when that dies. Where both are the same
// program, they share it in memory.
func (s supervisor) startBelow(conn *keeper.Client, program string, args []string) (<-chan error, error) {
	log, err := s.openLog()
	if err != nil {
		return nil, err
	}
	defer log.Close()
	pid, err := conn.Peer()
	if err != nil {
		return nil, err
	}
	var file *os.File
	if same, err := sameContent(fmt.Sprintf("/proc/%d/exe", pid), program); err != nil || !same {
		if file, err = os.Open(program); err != nil {
			return nil, unstartable(program, err)
		}
		defer file.Close()
	}
	pid, err = conn.Start(file, log, append([]string{program}, args...)...)
	if err != nil {
		return nil, unstartable(program, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- watchEnd(pid) }()
	return ended, nil
}

// errEnded is the end of a process that is not this one's child.
var errEnded = errors.New("nobody here is told how")

// watchEnd returns when a process that is not this one's child has ended.
func watchEnd(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return errEnded
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := awaitEnd(fd, -1); err != nil {
		return err
	}
	return errEnded
}

// keepKeeper starts a keeper whenever there is none, until ctx ends. The supervisor that runs is not below a new one: what it
// holds there are its containers' output and terminals, and the next one will have all.
func (s supervisor) keepKeeper(ctx context.Context) {
	for ctx.Err() == nil {
		conn, err := s.meetKeeper(ctx)
		if err == nil {
			select {
			case <-conn.Gone():
				s.logger.Warn("the keeper of the container supervisor ended, starting another")
			case <-ctx.Done():
			}
			err = conn.Close()
		}
		if err != nil {
			s.logger.Error("no keeper: exit codes of containers may be lost with the container supervisor", "error", err)
		}
		select {
		case <-time.After(relaunchPause):
		case <-ctx.Done():
		}
	}
}
