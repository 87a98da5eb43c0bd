package executor

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image/manifest"
)

const (
	defaultRetries = 3 // Docker's
	// minInterval keeps a check from being all that a container does; Docker's.
	minInterval = time.Millisecond
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

// dockerDefaults are Docker's of a health check.
func dockerDefaults() healthCheck {
	return healthCheck{interval: 30 * time.Second, timeout: 30 * time.Second, startInterval: 5 * time.Second, retries: defaultRetries}
}

// readyDefaults are those of a readiness check. It is asked for at once and often, since an update waits for each task.
func readyDefaults() healthCheck {
	return healthCheck{
		interval: 5 * time.Second, timeout: 5 * time.Second, startPeriod: 30 * time.Second, startInterval: time.Second, retries: defaultRetries,
	}
}

// checkOf returns the health check of a task, or nil: the image's, of which the service replaces what it names, as Docker does it.
// NONE in the service means that there is none.
func checkOf(t *api.Task, image manifest.ProgramConfig) *healthCheck {
	return compose(containerOf(t).GetHealth(), image, image.Healthcheck, dockerDefaults())
}

// readyCheckOf returns the readiness check of a task, or nil. No image has one.
func readyCheckOf(t *api.Task, image manifest.ProgramConfig) *healthCheck {
	return compose(containerOf(t).GetReady(), image, nil, readyDefaults())
}

// compose returns the check that own names, what it leaves out as from has it, which may be nil, and else as usual.
func compose(own *api.HealthConfig, image manifest.ProgramConfig, from *manifest.Healthcheck, usual healthCheck) *healthCheck {
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
		interval:      firstTime(own.GetInterval(), from.Interval, usual.interval),
		timeout:       firstTime(own.GetTimeout(), from.Timeout, usual.timeout),
		startInterval: firstTime(own.GetStartInterval(), from.StartInterval, usual.startInterval),
		startPeriod:   firstTime(own.GetStartPeriod(), from.StartPeriod, usual.startPeriod),
		retries:       cmp.Or(own.GetRetries(), uint32(from.Retries), usual.retries),
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

// config returns what the image of a prepared task says of its program, or nothing when the image is gone.
func (e *Executor) config(t *api.Task) manifest.ProgramConfig {
	h, ok := e.find(t.GetId())
	if !ok {
		return manifest.ProgramConfig{}
	}
	return h.image.Config
}
