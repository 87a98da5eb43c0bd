package supervisor

import (
	"context"
	"fmt"

	"github.com/skep-io/skep/runtime/protocol"
)

// pause halts all processes of a container. Whether it is paused only the kernel knows, so a new supervisor knows too.
func (s *Supervisor) pause(ctx context.Context, c *container) error {
	if err := c.executable(); err != nil {
		return err
	}
	c.pausing.Lock()
	defer c.pausing.Unlock()
	if c.leaving {
		return fmt.Errorf("%w: container %s is not running", protocol.ErrState, c.id)
	}
	if c.group.Frozen() {
		return fmt.Errorf("%w: container %s is paused already", protocol.ErrState, c.id)
	}
	return c.group.Freeze(ctx)
}

// resume lets them go on.
func (s *Supervisor) resume(c *container) error {
	if err := c.executable(); err != nil {
		return err
	}
	c.pausing.Lock()
	defer c.pausing.Unlock()
	if !c.group.Frozen() {
		return fmt.Errorf("%w: container %s is not paused", protocol.ErrState, c.id)
	}
	return c.group.Thaw()
}
