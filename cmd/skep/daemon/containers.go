package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skep-io/skep/agent/network"
	"github.com/skep-io/skep/runtime/client"
)

// endPatience bounds the end of all containers: they are killed, so only a kernel that is stuck takes longer.
const endPatience = 10 * time.Second

// clearContainers removes every container of this node, whoever started it, and their network: the node is in no swarm.
func (d *Daemon) clearContainers(ctx context.Context) error {
	if err := d.endContainers(ctx); err != nil {
		return err
	}
	left, err := network.New(network.Config{Dir: d.disk.path("network"), Subnet: d.cfg.BridgeSubnet})
	if err != nil {
		return err
	}
	return left.Remove()
}

// endContainers kills and removes every container.
func (d *Daemon) endContainers(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, endPatience, errors.New("they did not end in time"))
	defer cancel()
	events, err := d.runtime.Events(ctx)
	if err != nil {
		return fmt.Errorf("end containers: %w", err)
	}
	running, synced := map[string]bool{}, false
	for event := range events {
		id := event.State.ID
		switch {
		case event.Type == client.EventSynced:
			synced = true
		case event.Type == client.EventDeleted:
			delete(running, id)
		case event.State.Status == client.Running:
			running[id] = true
			err = d.runtime.KillAll(ctx, id)
		default: // it never started, or has ended
			delete(running, id)
			err = d.runtime.Delete(ctx, id)
		}
		if err != nil && !errors.Is(err, client.ErrNotFound) && !errors.Is(err, client.ErrState) {
			return fmt.Errorf("end container %s: %w", id, err)
		}
		if synced && len(running) == 0 {
			return nil
		}
	}
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("end containers: %w", err)
	}
	return errors.New("end containers: the container supervisor ended")
}

// countRunning counts the containers that run.
func countRunning(states []client.State) uint32 {
	var count uint32
	for _, state := range states {
		if state.Status == client.Running {
			count++
		}
	}
	return count
}
