package executor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

const (
	starting  = api.HealthState_HEALTH_STATE_STARTING
	healthy   = api.HealthState_HEALTH_STATE_HEALTHY
	unhealthy = api.HealthState_HEALTH_STATE_UNHEALTHY
)

// checks is a runtime whose commands end as a script says; the last line counts for all that follow.
type checks struct {
	Runtime
	script []check
	times  []time.Duration
	start  time.Time
}

type check struct {
	code   int
	output string
	err    error
	hang   bool
}

func (c *checks) Exec(ctx context.Context, _ string, _ Command) (Outcome, error) {
	c.times = append(c.times, time.Since(c.start))
	now := c.script[min(len(c.times), len(c.script))-1]
	if now.hang {
		<-ctx.Done()
		return Outcome{}, context.Cause(ctx)
	}
	return Outcome{ExitCode: now.code, Output: []byte(now.output)}, now.err
}

// probed is what a probe told, and when.
type probed struct {
	at     time.Duration
	status *api.ContainerStatus
}

// probe runs the probe of a container whose checks end as the script says, for as long.
func probe(t *testing.T, config *api.HealthConfig, from api.HealthState, script []check, limit time.Duration) (told []probed, r *checks, err error) {
	t.Helper()
	config.Test = []string{"CMD-SHELL", "true"}
	r = &checks{script: script, start: time.Now()}
	e := &Executor{cfg: Config{Runtime: r}}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	err = e.Probe(ctx, newTask(&api.ContainerSpec{Health: config}), from, func(c *api.ContainerStatus) {
		told = append(told, probed{time.Since(r.start), c})
	})
	return told, r, err
}

func sec(n int) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Second) }

func TestProbe(t *testing.T) {
	fail, ok := check{code: 1, output: "out\n"}, check{output: "fine"}
	for _, tt := range []struct {
		name   string
		config *api.HealthConfig
		from   api.HealthState
		script []check
		want   api.HealthState // the last one told
		reason string
		times  []int // in seconds
	}{
		{"the first success counts", &api.HealthConfig{}, starting, []check{fail, ok}, healthy, "", []int{30, 60}},
		{"three failures in a row", &api.HealthConfig{}, starting, []check{fail}, unhealthy, "exit code 1: out", []int{30, 60, 90}},
		{"a success between", &api.HealthConfig{Interval: sec(1), Retries: 2}, healthy, []check{fail, ok, fail, fail}, unhealthy, "exit code 1: out", []int{1, 2, 3, 4}},
		{"failures of the start period don't count", &api.HealthConfig{Interval: sec(10), StartPeriod: sec(12), Retries: 1}, starting, []check{fail}, unhealthy, "exit code 1: out", []int{5, 10, 15}},
		{"success in the start period", &api.HealthConfig{StartPeriod: sec(60), StartInterval: sec(1)}, starting, []check{fail, ok}, healthy, "", []int{1, 2}},
		{"too slow", &api.HealthConfig{Interval: sec(1), Timeout: sec(5), Retries: 2}, healthy, []check{{hang: true}}, unhealthy, "the check took longer than 5s", []int{1, 7}},
		{"can't be run", &api.HealthConfig{Interval: sec(1), Retries: 1}, healthy, []check{{err: fault.New(fault.Invalid, "no /bin/sh")}}, unhealthy, "no /bin/sh", []int{1}},
		{"says nothing", &api.HealthConfig{Interval: sec(1), Retries: 1}, healthy, []check{{code: 7}}, unhealthy, "exit code 7, without output", []int{1}},
		{"a container that is paused is not ill", &api.HealthConfig{Interval: sec(1), Retries: 1}, healthy, []check{{err: fault.New(fault.Precondition, "paused")}, {err: fault.New(fault.Precondition, "paused")}, fail}, unhealthy, "exit code 1: out", []int{1, 2, 3}},
		{"a runtime that is away says nothing", &api.HealthConfig{Interval: sec(1), Retries: 1}, starting, []check{{err: fault.New(fault.Unavailable, "away")}, ok}, healthy, "", []int{1, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limit := time.Duration(tt.times[len(tt.times)-1])*time.Second + 5*time.Second + time.Millisecond
				if tt.want == healthy {
					limit -= 5 * time.Second
				}
				told, r, err := probe(t, tt.config, tt.from, tt.script, limit)
				if (err == nil) != (tt.want == unhealthy) {
					t.Errorf("the probe ended with %v", err)
				}
				if last := told[len(told)-1].status; last.GetHealth() != tt.want || last.GetHealthOutput() != tt.reason {
					t.Errorf("got %v", last)
				}
				want := make([]time.Duration, len(tt.times))
				for i, at := range tt.times {
					want[i] = time.Duration(at) * time.Second
				}
				if diff := cmp.Diff(want, r.times); diff != "" {
					t.Errorf("checked at (-want +got):\n%s", diff)
				}
			})
		})
	}
}

// A check that fails for ever in its start period, and one that fails now and then, cost the managers few writes.
func TestProbe_TellsEverMoreRarelyWhatChangesNothing(t *testing.T) {
	flapping := make([]check, 5000)
	for i := range flapping {
		flapping[i].code = i % 2
	}
	for name, script := range map[string][]check{"failing": {{code: 1}}, "flapping": flapping} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := &api.HealthConfig{Interval: sec(1), StartInterval: sec(1), StartPeriod: sec(3600), Retries: 2}
				told, r, _ := probe(t, config, starting, script, time.Hour-time.Millisecond)
				if len(r.times) < 3500 || len(told) > 12 || len(told) < 8 {
					t.Errorf("told %d of %d checks", len(told), len(r.times))
				}
				if told[0].at != time.Second || told[0].status.GetHealthChecks() == nil {
					t.Errorf("first told after %v: %v", told[0].at, told[0].status)
				}
			})
		})
	}
}

func TestProbe_TellsTheLastFiveResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := strings.Repeat("x", maxProbeOutput/2+1)
		script := []check{{code: 1}, {code: 2}, {output: "secret of a success"}, {code: 3, output: big}, {code: 4, output: big}, {hang: true}, {code: 137, output: "\xff\xfegone"}}
		told, r, err := probe(t, &api.HealthConfig{Interval: sec(1), Timeout: sec(2), Retries: 4}, healthy, script, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		last := told[len(told)-1].status
		var got []string
		for _, r := range last.GetHealthChecks().GetResults() {
			output := r.GetOutput()
			if output == big {
				output = "big"
			}
			got = append(got, fmt.Sprintf("%d %v %q", r.GetExitCode(), r.GetEnd().AsTime().Sub(r.GetStart().AsTime()), output))
		}
		want := []string{`0 0s ""`, `3 0s ""`, `4 0s "big"`, `-1 2s "the check took longer than 2s"`, `137 0s "�gone"`}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if last.GetHealthChecks().GetFailingStreak() != 4 {
			t.Errorf("got a streak of %d", last.GetHealthChecks().GetFailingStreak())
		}
		if at := last.GetHealthChecks().GetResults()[4].GetStart().AsTime().Sub(r.start); at != r.times[6] {
			t.Errorf("the last check began after %v, is said to after %v", r.times[6], at)
		}
		if _, err := proto.Marshal(last); err != nil {
			t.Errorf("the status can't be sent: %v", err)
		}
	})
}

func TestProbe_EndsWithTheContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := fault.New(fault.NotFound, "gone")
		script := []check{{err: gone}}
		if _, _, err := probe(t, &api.HealthConfig{}, healthy, script, time.Minute); !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
		if _, _, err := probe(t, &api.HealthConfig{}, healthy, script, time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestProbe_WithoutTheImageThatHadTheCheck(t *testing.T) {
	e, task := &Executor{}, newTask(&api.ContainerSpec{})
	for from, want := range map[api.HealthState]api.HealthState{starting: healthy, healthy: 0} {
		var got api.HealthState
		if err := e.Probe(t.Context(), task, from, func(c *api.ContainerStatus) { got = c.GetHealth() }); err != nil || got != want {
			t.Errorf("from %v: got %v, %v", from, got, err)
		}
	}
}

// A readiness check has no last word: a container gets ready, is so no more, and gets ready again. At first it is asked each second.
func TestProbeReady_GoesOnWhateverItFinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail, ok := check{code: 1, output: "no database"}, check{}
		r := &checks{script: []check{fail, ok, fail, fail, fail, fail, ok}, start: time.Now()}
		e := &Executor{cfg: Config{Runtime: r}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var told []string
		task := newTask(&api.ContainerSpec{Ready: &api.HealthConfig{Test: []string{"CMD", "probe"}, Retries: 3}})
		err := e.ProbeReady(ctx, task, false, func(got *api.Readiness, why string) {
			told = append(told, fmt.Sprintf("%v %v %d %d %s", time.Since(r.start), got.GetReady(), len(got.GetChecks().GetResults()), got.GetChecks().GetFailingStreak(), why))
		})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the probe ended with %v", err)
		}
		want := []string{
			"1s false 1 0 exit code 1: no database", // failures don't count yet, but say why it waits
			"2s true 2 0 ",
			"12s true 4 2 exit code 1: no database", // two are not too many
			"17s false 5 3 exit code 1: no database",
			"27s true 5 0 ",
		}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// What was ready before the daemon was restarted is so until its checks fail.
func TestProbeReady_GoesOnFromWhatItWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &checks{script: []check{{code: 1}}, start: time.Now()}
		e := &Executor{cfg: Config{Runtime: r}}
		ctx, cancel := context.WithTimeout(t.Context(), 12*time.Second)
		defer cancel()
		var told []bool
		task := newTask(&api.ContainerSpec{Ready: &api.HealthConfig{Test: []string{"CMD", "probe"}, Retries: 2}})
		_ = e.ProbeReady(ctx, task, true, func(got *api.Readiness, _ string) { told = append(told, got.GetReady()) })
		if diff := cmp.Diff([]bool{true, false}, told); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestProbeReady_RefusesACheckOfALaterVersion(t *testing.T) {
	task := newTask(&api.ContainerSpec{Ready: &api.HealthConfig{Test: []string{"HTTP", "/ready"}}})
	err := (&Executor{}).ProbeReady(t.Context(), task, false, nil)
	if fault.KindOf(err) != fault.Invalid {
		t.Errorf("got %v", err)
	}
}
