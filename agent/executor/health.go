package executor

import (
	"cmp"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/image/manifest"
)

// Docker's defaults of a health check.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3
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
