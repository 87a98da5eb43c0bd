package cli

import (
	"context"
	"errors"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/internal/fault"
)

// maxWatchBreaks is how often in a row a watch may break off without an answer: with the pause between, it outlasts the
// election of a leader and the restart of a daemon.
const maxWatchBreaks = 30

// waitFor shows a service's progress until it has converged.
func (p *program) waitFor(ctx context.Context, c *client.Client, service *api.Service, quiet bool) error {
	var display progress.Display = progress.NewPlain(p.out)
	switch {
	case quiet:
		display = progress.Quiet{}
	case p.opts.IsTerminal(p.out):
		display = progress.NewLive(p.out)
	}
	tracker := progress.NewTracker(service.GetMeta().GetVersion(), p.opts.Monitor)
	watch := func(ctx context.Context, send func(*progress.Snapshot)) error {
		return p.watch(ctx, c, service.GetId(), send)
	}
	err := progress.Run(ctx, watch, tracker, display)
	if errors.Is(err, progress.ErrInterrupted) {
		return &interruptedError{service: service.GetId()}
	}
	return err
}

// watch sends snapshots of a service, and connects again when the daemon or its leader goes away for a while.
func (p *program) watch(ctx context.Context, c *client.Client, id string, send func(*progress.Snapshot)) error {
	var err error
	for breaks := 0; breaks < maxWatchBreaks; breaks++ {
		err = watchOnce(ctx, c, id, func(s *progress.Snapshot) {
			breaks = 0
			send(s)
		})
		kind := fault.KindOf(err)
		if ctx.Err() != nil || (kind != fault.Unavailable && kind != fault.NotLeader) {
			return err
		}
		select {
		case <-time.After(p.retryPause()):
		case <-ctx.Done():
			return err
		}
	}
	return err
}

func (p *program) retryPause() time.Duration {
	if p.opts.RetryPause != 0 {
		return p.opts.RetryPause
	}
	return client.RetryPause
}

func watchOnce(ctx context.Context, c *client.Client, id string, send func(*progress.Snapshot)) error {
	stream, err := c.Control.WatchService(ctx, &api.WatchServiceRequest{ServiceId: id})
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		send(&progress.Snapshot{Service: answer.GetService(), Tasks: answer.GetTasks()})
	}
}
