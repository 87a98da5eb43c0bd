package progress

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/skep-io/skep/api"
)

var (
	// ErrInterrupted is returned when the caller stopped waiting; the service goes on without being watched.
	ErrInterrupted = errors.New("interrupted")
	// ErrEnded is returned when tasks failed and are not restarted.
	ErrEnded = errors.New("the tasks ended and are not restarted")
	// ErrStopped is returned when an update was paused or rolled back.
	ErrStopped = errors.New("the update failed")
)

// EndedError is an [ErrEnded] that names one of the tasks that failed.
type EndedError struct {
	Task *api.Task
	// Reason is why the task ended.
	Reason string
}

func (e *EndedError) Error() string { return ErrEnded.Error() + ": " + e.Reason }

// Unwrap is for errors.Is.
func (e *EndedError) Unwrap() error { return ErrEnded }

// Watch sends snapshots until ctx ends or an error stops it. It must not call send after it returned.
type Watch func(ctx context.Context, send func(*Snapshot)) error

// Run shows the tracker's lines until the service has converged. It returns [ErrInterrupted] when ctx ends before,
// an [EndedError] when the service ended before, [ErrStopped] when its update was paused or rolled back, and else the error that ended the watch or the display.
func Run(ctx context.Context, watch Watch, tracker *Tracker, display Display) error {
	watchCtx, cancel := context.WithCancel(ctx)
	snapshots, ended := make(chan *Snapshot), make(chan error, 1)
	go func() {
		ended <- watch(watchCtx, func(s *Snapshot) {
			select {
			case snapshots <- s:
			case <-watchCtx.Done():
			}
		})
		close(ended)
	}()
	defer func() {
		cancel()
		for range ended { // wait for the watch's end
		}
	}()
	return follow(ctx, snapshots, ended, tracker, display)
}

func follow(ctx context.Context, snapshots <-chan *Snapshot, ended <-chan error, tracker *Tracker, display Display) error {
	var wake <-chan time.Time
	for {
		var snapshot *Snapshot
		select {
		case <-ctx.Done():
			return ErrInterrupted
		case err := <-ended:
			if ctx.Err() != nil {
				return ErrInterrupted
			}
			return fmt.Errorf("watch: %w", orEnd(err))
		case snapshot = <-snapshots:
		case <-wake:
		}
		view := tracker.Step(time.Now(), snapshot)
		if err := display.Show(view.Lines); err != nil {
			return fmt.Errorf("show progress: %w", err)
		}
		if view.Converged {
			return nil
		}
		if view.Stopped != "" {
			return fmt.Errorf("%w: %s", ErrStopped, view.Stopped)
		}
		if view.Failure != "" {
			return &EndedError{Task: view.Failed, Reason: view.Failure}
		}
		wake = nil
		if view.Wake > 0 {
			wake = time.After(view.Wake)
		}
	}
}

// errEnded is returned when a watch ended although nothing was wrong.
var errEnded = errors.New("the daemon ended it")

func orEnd(err error) error {
	if err == nil {
		return errEnded
	}
	return err
}
