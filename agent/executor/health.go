package executor

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/internal/fault"
)

// Docker's defaults of a health check.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3
	// minInterval keeps a check from being all that a container does; Docker's.
	minInterval = time.Millisecond
	// maxHealthOutput is the most bytes that are kept of a check's output; Docker's.
	maxHealthOutput = 4096
)

// The first words of a health check that mean something: the other ones are a program and its arguments, or a command line for the
// image's shell.
const (
	checkProgram = "CMD"
	checkShell   = "CMD-SHELL"
)

// healthCheck is how to tell whether a container works.
type healthCheck struct {
	args                                          []string
	interval, timeout, startPeriod, startInterval time.Duration
	retries                                       uint32
}

// checkOf returns the health check of a task, or nil: the image's, of which the service replaces what it names, as Docker does it.
// NONE in the service means that there is none.
func checkOf(t *api.Task, image manifest.ProgramConfig) *healthCheck {
	own, from := containerOf(t).GetHealth(), image.Healthcheck
	if from == nil {
		from = &manifest.Healthcheck{}
	}
	test := own.GetTest()
	if len(test) == 0 {
		test = from.Test
	}
	if len(test) < 2 {
		return nil
	}
	c := &healthCheck{
		args:          test[1:],
		interval:      firstTime(own.GetInterval(), from.Interval, defaultInterval),
		timeout:       firstTime(own.GetTimeout(), from.Timeout, defaultTimeout),
		startInterval: firstTime(own.GetStartInterval(), from.StartInterval, defaultStartInterval),
		startPeriod:   firstTime(own.GetStartPeriod(), from.StartPeriod, 0),
		retries:       cmp.Or(own.GetRetries(), uint32(from.Retries), defaultRetries),
	}
	switch test[0] {
	case checkProgram:
	case checkShell:
		shell := image.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		c.args = slices.Concat(shell, c.args)
	default: // of an image for another engine
		return nil
	}
	return c
}

// firstTime returns the first time that was given.
func firstTime(own *durationpb.Duration, image, usual time.Duration) time.Duration {
	if d := own.AsDuration(); d > 0 {
		return max(d, minInterval)
	}
	if image > 0 {
		return max(image, minInterval)
	}
	return usual
}

// check returns the health check of a prepared task, or nil.
func (e *Executor) check(t *api.Task) *healthCheck {
	h, ok := e.find(t.GetId())
	if !ok {
		return checkOf(t, manifest.ProgramConfig{})
	}
	return checkOf(t, h.image.Config)
}

// prober decides what the results of checks mean. It has no clock and runs nothing:
//
//	STARTING ── success ──> HEALTHY ── retries failures in a row ──> UNHEALTHY
//	         └─ retries failures in a row after the start period ──> UNHEALTHY
type prober struct {
	check   healthCheck
	started time.Time
	state   api.HealthState
	// failures in a row that count.
	failures uint32
}

// next returns when to check the next time.
func (p *prober) next(now time.Time) time.Time {
	if p.inStartPeriod(now) {
		return now.Add(p.check.startInterval)
	}
	return now.Add(p.check.interval)
}

// step takes in whether a check succeeded, and returns the state after it.
func (p *prober) step(now time.Time, ok bool) api.HealthState {
	switch {
	case ok:
		p.state, p.failures = api.HealthState_HEALTH_STATE_HEALTHY, 0
	case p.inStartPeriod(now):
	default:
		if p.failures++; p.failures >= p.check.retries {
			p.state = api.HealthState_HEALTH_STATE_UNHEALTHY
		}
	}
	return p.state
}

func (p *prober) inStartPeriod(now time.Time) bool {
	return p.state == api.HealthState_HEALTH_STATE_STARTING && now.Before(p.started.Add(p.check.startPeriod))
}

// Probe checks a container's health until it is another than it was. After a restart of the daemon the start period begins anew.
func (e *Executor) Probe(ctx context.Context, t *api.Task, from api.HealthState) (*api.ContainerStatus, error) {
	check := e.check(t)
	if check == nil {
		return e.unprobed(ctx, from)
	}
	p := &prober{check: *check, started: time.Now(), state: from}
	for {
		timer := time.NewTimer(time.Until(p.next(time.Now())))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		ok, output, err := e.runCheck(ctx, t.GetId(), *check)
		if kind := fault.KindOf(err); kind == fault.Unavailable || kind == fault.Precondition {
			continue // the supervisor is being restarted, or the container is halted or has just ended: that says nothing of its health
		}
		if err != nil {
			return nil, err
		}
		if state := p.step(time.Now(), ok); state != from {
			return &api.ContainerStatus{Health: state, HealthOutput: output}, nil
		}
	}
}

// unprobed is Probe for a container whose image is gone, and with it how to check it: nothing says that it is ill.
func (e *Executor) unprobed(ctx context.Context, from api.HealthState) (*api.ContainerStatus, error) {
	if from == api.HealthState_HEALTH_STATE_STARTING {
		return &api.ContainerStatus{Health: api.HealthState_HEALTH_STATE_HEALTHY}, nil
	}
	<-ctx.Done()
	return nil, ctx.Err()
}

// runCheck runs a check once. The error is for a container that doesn't run, a runtime that can't be asked, or the end of ctx.
func (e *Executor) runCheck(ctx context.Context, id string, c healthCheck) (ok bool, output string, err error) {
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	out, err := e.cfg.Runtime.Exec(limited, id, Command{Args: c.args, MaxOutput: maxHealthOutput})
	kind := fault.KindOf(err)
	switch {
	case err == nil && out.ExitCode == 0:
		return true, "", nil
	case err == nil && len(out.Output) == 0:
		return false, fmt.Sprintf("the health check ended with status %d and no output", out.ExitCode), nil
	case err == nil:
		return false, string(out.Output), nil
	case ctx.Err() != nil:
		return false, "", ctx.Err()
	case limited.Err() != nil:
		return false, fmt.Sprintf("the health check took longer than %v", c.timeout), nil
	case kind == fault.NotFound || kind == fault.Precondition || kind == fault.Unavailable:
		return false, "", err
	default: // it can't be run
		return false, err.Error(), nil
	}
}
