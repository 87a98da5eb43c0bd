package cli

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/client"
	"github.com/skep-io/skep/cmd/skep/cli/progress"
	"github.com/skep-io/skep/internal/fault"
)

// maxWatchBreaks is how often in a row a watch may break off without an answer: with the pause between, it outlasts the
// election of a leader and the restart of a daemon.
const maxWatchBreaks = 30

// A manager that follows hears of a write within a heartbeat; maxLags times lagPause is 5 s.
const (
	lagPause = 100 * time.Millisecond
	maxLags  = 50
)

// display is where and how progress is shown.
func (p *program) display(quiet bool) progress.Display {
	switch {
	case quiet:
		return progress.Quiet{}
	case p.opts.IsTerminal(p.out):
		return progress.NewLive(p.out, p.width())
	default:
		return progress.NewPlain(p.out)
	}
}

// waitFor shows a service's progress until it has converged.
func (p *program) waitFor(ctx context.Context, c *client.Client, service *api.Service, quiet bool) error {
	return p.waitShown(ctx, c, service, p.display(quiet))
}

// waitShown is waitFor on a display.
func (p *program) waitShown(ctx context.Context, c *client.Client, service *api.Service, display progress.Display) error {
	tracker := progress.NewTracker(service.GetMeta().GetVersion(), p.opts.Monitor)
	if service.GetUpdateStatus().GetState() == api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED {
		tracker.Wanted()
	}
	watch := func(ctx context.Context, send func(*progress.Snapshot)) error {
		return p.watch(ctx, c, service.GetId(), send)
	}
	err := progress.Run(ctx, watch, tracker, display)
	if errors.Is(err, progress.ErrInterrupted) {
		return &interruptedError{check: "skep service ps " + service.GetId()}
	}
	return err
}

// watch sends snapshots of a service, and connects again when the daemon or its leader goes away for a while.
func (p *program) watch(ctx context.Context, c *client.Client, id string, send func(*progress.Snapshot)) error {
	breaks, seen := 0, false
	for {
		err := watchOnce(ctx, c, id, func(s *progress.Snapshot) {
			breaks, seen = 0, true
			send(s)
		})
		breaks++
		pause, again := p.pauseAfter(err, breaks, seen)
		if !again {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return err
		}
	}
}

// pauseAfter says whether and when to watch again after the number of breaks without an answer between. A manager that
// follows may not have heard yet of a service that was just written: then it is not found before it was seen once.
func (p *program) pauseAfter(err error, breaks int, seen bool) (time.Duration, bool) {
	switch fault.KindOf(err) {
	case fault.Unavailable, fault.NotLeader:
		pause := p.opts.RetryPause
		if pause == 0 {
			pause = client.RetryPause
		}
		return pause, breaks < maxWatchBreaks
	case fault.NotFound:
		return lagPause, !seen && breaks < maxLags
	default:
		return 0, false
	}
}

func watchOnce(ctx context.Context, c *client.Client, id string, send func(*progress.Snapshot)) error {
	stream, err := c.Control.WatchService(ctx, &api.WatchServiceRequest{ServiceId: id})
	if err != nil {
		return err
	}
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return fault.New(fault.Unavailable, "the manager ended the watch")
		}
		if err != nil {
			return err
		}
		send(&progress.Snapshot{Service: answer.GetService(), Tasks: answer.GetTasks(), Counts: answer.GetCounts()})
	}
}
