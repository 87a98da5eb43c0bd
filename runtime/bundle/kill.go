package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Kill sends a signal to the container's process, or to all of its processes.
func (r *Runtime) Kill(id string, signal unix.Signal, all bool) error {
	c, err := r.find(id)
	if err != nil {
		return err
	}
	if all {
		err = c.signalAll(signal)
	} else {
		err = c.signal(signal)
	}
	if err != nil {
		return fmt.Errorf("kill container %s: %w", id, err)
	}
	return nil
}

// handle opens the container's process; ErrNotRunning if it has ended (I2).
func (c *container) handle() (int, error) {
	fd, err := unix.PidfdOpen(c.record.Pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return -1, ErrNotRunning
	}
	if err != nil {
		return -1, err
	}
	if !c.alive() { // the handle is of whoever has the number; if that is ours, it was ours before too
		unix.Close(fd)
		return -1, ErrNotRunning
	}
	return fd, nil
}

func (c *container) signal(signal unix.Signal) error {
	fd, err := c.handle()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, signal, nil, 0); errors.Is(err, unix.ESRCH) {
		return ErrNotRunning
	} else if err != nil {
		return err
	}
	if signal == unix.SIGKILL { // a halted process ends when it goes on
		return c.thaw()
	}
	return nil
}

// signalAll signals every process of the control group, which may be more than those of the container's first one.
func (c *container) signalAll(signal unix.Signal) error {
	group, err := c.group()
	if err != nil {
		return err
	}
	if signal == unix.SIGKILL {
		return group.KillAll()
	}
	return group.Signal(signal)
}

// Pids lists the container's processes, by their numbers on the host.
func (r *Runtime) Pids(id string) ([]int, error) {
	c, err := r.find(id)
	if err != nil {
		return nil, err
	}
	group, err := c.group()
	if err != nil {
		return nil, fmt.Errorf("list processes of container %s: %w", id, err)
	}
	return group.Pids()
}

// endWait bounds how long Delete waits for the end of a process that it killed.
const endWait = 10 * time.Second

// Delete forgets a container that is stopped, or was never started. With force it kills the process first, and a
// container that isn't there is no error.
func (r *Runtime) Delete(ctx context.Context, id string, force bool) error {
	c, err := r.find(id)
	if errors.Is(err, ErrNotFound) && force {
		return r.sweep(id)
	}
	if err != nil {
		return err
	}
	if status := c.status(); (status == specs.StateRunning || status == statePaused) && !force {
		return fmt.Errorf("cannot delete container %s that is not stopped: %s", id, status)
	}
	if err := c.end(ctx); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	if err := c.remove(ctx); err != nil {
		return fmt.Errorf("delete container %s: %w", id, err)
	}
	if h := c.config.Hooks; h != nil {
		for _, err := range runHooks(ctx, "poststop", h.Poststop, c.state(specs.StateStopped), nil) {
			r.logger.Warn("hook failed", "container", id, "error", err)
		}
	}
	return nil
}

// sweep removes what a create left that was killed.
func (r *Runtime) sweep(id string) error {
	dir, err := r.dir(id)
	if err != nil {
		return err
	}
	return os.RemoveAll(dir)
}

// end makes sure that the process has ended.
func (c *container) end(ctx context.Context) error {
	fd, err := c.handle()
	if errors.Is(err, ErrNotRunning) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return err
	}
	if err := c.thaw(); err != nil {
		return err
	}
	return awaitEnd(ctx, fd, endWait)
}

// awaitEnd waits for the end of a process, by its handle.
func awaitEnd(ctx context.Context, pidfd int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for ctx.Err() == nil {
		left := time.Until(deadline)
		if left <= 0 {
			return errors.New("the process does not end")
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if n > 0 {
			return nil
		}
	}
	return context.Cause(ctx)
}

// remove removes the group, with the processes that were left in it, and the directory.
func (c *container) remove(ctx context.Context) error {
	group, err := c.group()
	if err != nil {
		return err
	}
	if group.Exists() {
		if err := group.KillAll(); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := group.Remove(ctx); err != nil {
		return err
	}
	return os.RemoveAll(c.dir)
}
