package executor

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

const (
	// maxResults is how many results of checks are kept; Docker's.
	maxResults = 5
	// maxProbeOutput is the most bytes that are kept of a check's output, Docker's, and of the outputs of one log that managers are told.
	maxProbeOutput = 4096
	// maxReason is the most bytes of an output that a task's error repeats: managers keep 1 KiB of one.
	maxReason = 960
	// noExitCode is that of a check that could not be run or took too long; Docker's.
	noExitCode = -1
	// minQuiet is the time between two tellings that checks fail although that changes nothing yet, which doubles up to maxQuiet: each is a
	// write in the store of the managers.
	minQuiet = 10 * time.Second
	maxQuiet = time.Hour
)

// prober decides what the results of checks mean, and what of them is news. It has no clock and runs nothing:
//
//	STARTING ── success ──> HEALTHY ── retries failures in a row ──> UNHEALTHY
//	         └─ retries failures in a row after the start period ──> UNHEALTHY
//
// A container whose health is checked is ended when it is UNHEALTHY. For a readiness check HEALTHY is ready, and a success after
// UNHEALTHY leads back there.
type prober struct {
	check   healthCheck
	started time.Time
	state   api.HealthState
	// failures in a row that count.
	failures uint32
	// results are the last ones, the oldest first.
	results []*api.ProbeResult

	// failing says that a failure was told last.
	failing bool
	// quiet is how long nothing is told that changes nothing, and until when.
	quiet time.Duration
	until time.Time
}

// next returns when to check the next time.
func (p *prober) next(now time.Time) time.Time {
	if p.inStartPeriod(now) {
		return now.Add(p.check.startInterval)
	}
	return now.Add(p.check.interval)
}

// step takes in the result of a check, and says whether the managers are to know of it.
func (p *prober) step(now time.Time, r *api.ProbeResult) (news bool) {
	p.results = append(p.results[max(0, len(p.results)-maxResults+1):], r)
	before, ok := p.state, r.GetExitCode() == 0
	switch {
	case ok:
		p.state, p.failures = api.HealthState_HEALTH_STATE_HEALTHY, 0
	case p.inStartPeriod(now):
	default:
		if p.failures++; p.failures >= p.check.retries {
			p.state = api.HealthState_HEALTH_STATE_UNHEALTHY
		}
	}
	return p.tells(now, p.state != before, ok)
}

// tells decides whether a result is news: one that changes the state is, and, ever more rarely, a failure or the end of failures.
func (p *prober) tells(now time.Time, changed, ok bool) bool {
	switch {
	case changed:
		p.quiet = minQuiet
	case ok && !p.failing, now.Before(p.until):
		return false
	default:
		p.quiet = min(max(2*p.quiet, minQuiet), maxQuiet)
	}
	p.failing, p.until = !ok, now.Add(p.quiet)
	return true
}

func (p *prober) inStartPeriod(now time.Time) bool {
	return p.state == api.HealthState_HEALTH_STATE_STARTING && now.Before(p.started.Add(p.check.startPeriod))
}

// log returns what the managers are told of the results: no output of those that succeeded, and of the others the newest before all.
func (p *prober) log() *api.ProbeLog {
	out := &api.ProbeLog{FailingStreak: p.failures, Results: make([]*api.ProbeResult, len(p.results))}
	room := maxProbeOutput
	for i := len(p.results) - 1; i >= 0; i-- {
		r := p.results[i]
		out.Results[i] = &api.ProbeResult{Start: r.GetStart(), End: r.GetEnd(), ExitCode: r.GetExitCode()}
		if r.GetExitCode() != 0 && len(r.GetOutput()) <= room {
			out.Results[i].Output = r.GetOutput()
			room -= len(r.GetOutput())
		}
	}
	return out
}

// reason says why the last check failed, or is empty while failures don't count.
func (p *prober) reason() string {
	if p.failures == 0 {
		return ""
	}
	return p.failure()
}

// failure says why the last check failed, or is empty after a success.
func (p *prober) failure() string {
	last := p.results[len(p.results)-1]
	if last.GetExitCode() == 0 {
		return ""
	}
	output := fault.Clip(strings.TrimSpace(last.GetOutput()), maxReason)
	switch code := last.GetExitCode(); {
	case code == noExitCode:
		return output
	case output == "":
		return fmt.Sprintf("exit code %d, without output", code)
	default:
		return fmt.Sprintf("exit code %d: %s", code, output)
	}
}

// Probe checks a container's health until it is unhealthy. After a restart of the daemon the start period begins anew.
func (e *Executor) Probe(ctx context.Context, t *api.Task, from api.HealthState, tell func(*api.ContainerStatus)) error {
	check := checkOf(t, e.config(t))
	if check == nil {
		// The image is gone, and with it how to check: nothing says that the container is ill.
		if from == api.HealthState_HEALTH_STATE_STARTING {
			tell(&api.ContainerStatus{Health: api.HealthState_HEALTH_STATE_HEALTHY})
		}
		return nil
	}
	return e.probe(ctx, t.GetId(), &prober{check: *check, state: from}, func(p *prober) bool {
		tell(&api.ContainerStatus{Health: p.state, HealthOutput: p.reason(), HealthChecks: p.log()})
		return p.state != api.HealthState_HEALTH_STATE_UNHEALTHY
	})
}

// ProbeReady checks whether a container is ready, as long as it runs.
func (e *Executor) ProbeReady(ctx context.Context, t *api.Task, ready bool, tell func(*api.Readiness, string)) error {
	check := readyCheckOf(t, e.config(t))
	if check == nil {
		return fault.New(fault.Invalid, "task %s has no readiness check that this node understands", t.GetId())
	}
	from := api.HealthState_HEALTH_STATE_STARTING
	if ready {
		from = api.HealthState_HEALTH_STATE_HEALTHY
	}
	return e.probe(ctx, t.GetId(), &prober{check: *check, state: from}, func(p *prober) bool {
		tell(&api.Readiness{Ready: p.state == api.HealthState_HEALTH_STATE_HEALTHY, Checks: p.log()}, p.failure())
		return true
	})
}

// probe checks a container until news, which is called for each result that is some, wants no more.
func (e *Executor) probe(ctx context.Context, id string, p *prober, news func(*prober) bool) error {
	p.started = time.Now()
	for {
		is, err := e.probeNext(ctx, id, p)
		if err != nil {
			return err
		}
		if is && !news(p) {
			return nil
		}
	}
}

// probeNext waits until the next check is due and runs it, and says whether its result is news.
func (e *Executor) probeNext(ctx context.Context, id string, p *prober) (news bool, err error) {
	timer := time.NewTimer(time.Until(p.next(time.Now())))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	r, err := e.runCheck(ctx, id, p.check)
	switch kind := fault.KindOf(err); {
	case err == nil:
		return p.step(time.Now(), r), nil
	case kind == fault.Unavailable || kind == fault.Precondition:
		return false, nil // the supervisor is being restarted, or the container is halted or has just ended: that says nothing of its health
	default:
		return false, err
	}
}

// runCheck runs a check once. The error is for a container that doesn't run, a runtime that can't be asked, or the end of ctx.
func (e *Executor) runCheck(ctx context.Context, id string, c healthCheck) (*api.ProbeResult, error) {
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	begun := time.Now()
	out, err := e.cfg.Runtime.Exec(limited, id, Command{Args: c.args, MaxOutput: maxProbeOutput})
	r := &api.ProbeResult{Start: timestamppb.New(begun), End: timestamppb.Now(), ExitCode: noExitCode}
	kind := fault.KindOf(err)
	switch {
	case err == nil:
		r.ExitCode, r.Output = int32(out.ExitCode), string(out.Output)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case limited.Err() != nil:
		r.Output = fmt.Sprintf("the check took longer than %v", c.timeout)
	case kind == fault.NotFound || kind == fault.Precondition || kind == fault.Unavailable:
		return nil, err
	default: // it can't be run
		r.Output = err.Error()
	}
	// A program may write anything, and a status that is not UTF-8 could not be sent, nor any other with it.
	r.Output = fault.Clip(strings.ToValidUTF8(r.GetOutput(), "\uFFFD"), maxProbeOutput)
	return r, nil
}
