package bundle

import (
	"context"
	"fmt"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// statePaused is runc's word, which engines look for: the specification leaves further states to runtimes.
const statePaused specs.ContainerState = "paused"

// Pause halts all processes of a running container. Signals reach them when they go on, but for SIGKILL, which ends the pause.
func (r *Runtime) Pause(ctx context.Context, id string) error {
	c, err := r.find(id)
	if err != nil {
		return err
	}
	if status := c.status(); status != specs.StateRunning {
		return fmt.Errorf("pause container %s: %w: it is %s, not running", id, ErrState, status)
	}
	group, err := c.group()
	if err == nil {
		err = group.Freeze(ctx)
	}
	if err != nil {
		return fmt.Errorf("pause container %s: %w", id, err)
	}
	return nil
}

// Resume lets the processes of a paused container go on.
func (r *Runtime) Resume(id string) error {
	c, err := r.find(id)
	if err != nil {
		return err
	}
	if status := c.status(); status != statePaused {
		return fmt.Errorf("resume container %s: %w: it is %s, not paused", id, ErrState, status)
	}
	if err := c.thaw(); err != nil {
		return fmt.Errorf("resume container %s: %w", id, err)
	}
	return nil
}

// frozen reports whether the container is paused; it runs.
func (c *container) frozen() bool {
	group, err := c.group()
	return err == nil && group.Frozen()
}

// thaw lets all processes go on, if they are halted.
func (c *container) thaw() error {
	group, err := c.group()
	if err != nil {
		return err
	}
	return group.Thaw()
}
