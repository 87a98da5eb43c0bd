package client

import (
	"context"

	"github.com/skep-io/skep/runtime/protocol"
)

// Process is one of a container's, as the kernel shows it.
type Process = protocol.Process

// Pause halts all processes of a running container, wherever they are. While it is paused, no Exec is possible, and of signals only
// SIGKILL has an effect.
func (c *Client) Pause(ctx context.Context, id string) error {
	_, err := c.call(ctx, protocol.Call{Op: protocol.OpPause, ID: id})
	return err
}

// Resume lets the processes of a paused container go on.
func (c *Client) Resume(ctx context.Context, id string) error {
	_, err := c.call(ctx, protocol.Call{Op: protocol.OpResume, ID: id})
	return err
}

// Processes lists what runs in a container, its first process and all others.
func (c *Client) Processes(ctx context.Context, id string) ([]Process, error) {
	reply, err := c.call(ctx, protocol.Call{Op: protocol.OpTop, ID: id})
	return reply.Processes, err
}
