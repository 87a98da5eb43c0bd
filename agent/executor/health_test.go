package executor

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/internal/fault"
)

// checks is a runtime whose commands end as a script says; the last line counts for all that follow.
type checks struct {
	Runtime
	script []check
	times  []time.Duration
	start  time.Time
}

type check struct {
	code int
	err  error
	hang bool
}

func (c *checks) Exec(ctx context.Context, _ string, _ Command) (Outcome, error) {
	c.times = append(c.times, time.Since(c.start))
	now := c.script[min(len(c.times), len(c.script))-1]
	if now.hang {
		<-ctx.Done()
		return Outcome{}, context.Cause(ctx)
	}
	return Outcome{ExitCode: now.code, Output: []byte("out\n")}, now.err
}

func TestProbe(t *testing.T) {
	const starting, healthy, unhealthy = api.HealthState_HEALTH_STATE_STARTING, api.HealthState_HEALTH_STATE_HEALTHY, api.HealthState_HEALTH_STATE_UNHEALTHY
	sec := func(n int) *durationpb.Duration { return durationpb.New(time.Duration(n) * time.Second) }
	fail, ok := check{code: 1}, check{}
	for _, tt := range []struct {
		name   string
		config *api.HealthConfig
		from   api.HealthState
		script []check
		want   api.HealthState
		output string
		times  []int // in seconds
	}{
		{"the first success counts", &api.HealthConfig{}, starting, []check{fail, ok}, healthy, "", []int{30, 60}},
		{"three failures in a row", &api.HealthConfig{}, starting, []check{fail}, unhealthy, "out\n", []int{30, 60, 90}},
		{"a success between", &api.HealthConfig{Interval: sec(1), Retries: 2}, healthy, []check{fail, ok, fail, fail}, unhealthy, "out\n", []int{1, 2, 3, 4}},
		{"failures of the start period don't count", &api.HealthConfig{Interval: sec(10), StartPeriod: sec(12), Retries: 1}, starting, []check{fail}, unhealthy, "out\n", []int{5, 10, 15}},
		{"success in the start period", &api.HealthConfig{StartPeriod: sec(60), StartInterval: sec(1)}, starting, []check{fail, ok}, healthy, "", []int{1, 2}},
		{"too slow", &api.HealthConfig{Interval: sec(1), Timeout: sec(5), Retries: 2}, healthy, []check{{hang: true}}, unhealthy, "the health check took longer than 5s", []int{1, 7}},
		{"can't be run", &api.HealthConfig{Interval: sec(1), Retries: 1}, healthy, []check{{err: fault.New(fault.Invalid, "no /bin/sh")}}, unhealthy, "no /bin/sh", []int{1}},
		{"a container that is paused is not ill", &api.HealthConfig{Interval: sec(1), Retries: 1}, healthy, []check{{err: fault.New(fault.Precondition, "paused")}, {err: fault.New(fault.Precondition, "paused")}, fail}, unhealthy, "out\n", []int{1, 2, 3}},
		{"a runtime that is away says nothing", &api.HealthConfig{Interval: sec(1), Retries: 1}, starting, []check{{err: fault.New(fault.Unavailable, "away")}, ok}, healthy, "", []int{1, 2}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tt.config.Test = []string{"CMD-SHELL", "true"}
				r := &checks{script: tt.script, start: time.Now()}
				e := &Executor{cfg: Config{Runtime: r}}
				got, err := e.Probe(t.Context(), newTask(&api.ContainerSpec{Health: tt.config}), tt.from)
				if err != nil || got.GetHealth() != tt.want || got.GetHealthOutput() != tt.output {
					t.Errorf("got %v, %v", got, err)
				}
				for i, at := range r.times {
					if i >= len(tt.times) || at != time.Duration(tt.times[i])*time.Second {
						t.Fatalf("checked at %v, want %v", r.times, tt.times)
					}
				}
				if len(r.times) != len(tt.times) {
					t.Errorf("checked at %v, want %v", r.times, tt.times)
				}
			})
		})
	}
}

func TestProbe_EndsWithTheContainer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := fault.New(fault.NotFound, "gone")
		e := &Executor{cfg: Config{Runtime: &checks{script: []check{{err: gone}}}}}
		task := newTask(&api.ContainerSpec{Health: &api.HealthConfig{Test: []string{"CMD", "x"}}})
		if _, err := e.Probe(t.Context(), task, api.HealthState_HEALTH_STATE_HEALTHY); !errors.Is(err, gone) {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.Probe(ctx, task, api.HealthState_HEALTH_STATE_HEALTHY); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}

func TestCheckOf_PutsTheServiceOverTheImage(t *testing.T) {
	const s = time.Second
	shell := []string{"/bin/sh", "-c"}
	image := &manifest.Healthcheck{Test: []string{"CMD", "/probe"}, Interval: 2 * s, Timeout: 3 * s, StartPeriod: 4 * s, StartInterval: 5 * s, Retries: 6}
	for _, tt := range []struct {
		name  string
		own   *api.HealthConfig
		image *manifest.Healthcheck
		shell []string
		want  *healthCheck
	}{
		{"nothing", nil, nil, nil, nil},
		{"a service with times only", &api.HealthConfig{Retries: 3}, nil, nil, nil},
		{"the image's", nil, image, nil, &healthCheck{[]string{"/probe"}, 2 * s, 3 * s, 4 * s, 5 * s, 6}},
		{
			"the image's with Docker's defaults", nil, &manifest.Healthcheck{Test: []string{"CMD", "/probe", "-v"}}, nil,
			&healthCheck{[]string{"/probe", "-v"}, 30 * s, 30 * s, 0, 5 * s, 3},
		},
		{
			"a command line", nil, &manifest.Healthcheck{Test: []string{"CMD-SHELL", "true"}, Interval: 1}, nil,
			&healthCheck{append(shell, "true"), time.Millisecond, 30 * s, 0, 5 * s, 3},
		},
		{
			"a command line for the image's shell", nil, &manifest.Healthcheck{Test: []string{"CMD-SHELL", "true"}},
			[]string{"/bin/ash", "-ec"},
			&healthCheck{[]string{"/bin/ash", "-ec", "true"}, 30 * s, 30 * s, 0, 5 * s, 3},
		},
		{
			"single fields of the service", &api.HealthConfig{Interval: durationpb.New(s), Retries: 1}, image, nil,
			&healthCheck{[]string{"/probe"}, s, 3 * s, 4 * s, 5 * s, 1},
		},
		{
			"the service's command with the image's times", &api.HealthConfig{Test: []string{"CMD-SHELL", "x"}}, image, nil,
			&healthCheck{append(shell, "x"), 2 * s, 3 * s, 4 * s, 5 * s, 6},
		},
		{"--no-healthcheck", &api.HealthConfig{Test: []string{"NONE"}}, image, nil, nil},
		{"an image that says NONE", nil, &manifest.Healthcheck{Test: []string{"NONE"}}, nil, nil},
		{"an image for another engine", nil, &manifest.Healthcheck{Test: []string{"HTTP", "/"}}, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := checkOf(newTask(&api.ContainerSpec{Health: tt.own}), manifest.ProgramConfig{Healthcheck: tt.image, Shell: tt.shell})
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(healthCheck{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestProbe_WithoutTheImageThatHadTheCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, task := &Executor{}, newTask(&api.ContainerSpec{})
		got, err := e.Probe(t.Context(), task, api.HealthState_HEALTH_STATE_STARTING)
		if err != nil || got.GetHealth() != api.HealthState_HEALTH_STATE_HEALTHY {
			t.Errorf("got %v, %v", got, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.Probe(ctx, task, api.HealthState_HEALTH_STATE_HEALTHY); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
}
