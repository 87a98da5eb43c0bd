package view

import (
	"time"

	"github.com/skep-io/skep/api"
)

// Health is what the checks of a container say.
type Health struct {
	// Status is starting, healthy or unhealthy.
	Status        string
	FailingStreak uint32
	// Log has the last five results as the node told them, the oldest first.
	Log []HealthResult
}

// HealthResult is what became of one check.
type HealthResult struct {
	Start, End time.Time
	ExitCode   int32
	Output     string
}

// newHealth returns nil for a container that is not checked.
func newHealth(state api.HealthState, log *api.ProbeLog) *Health {
	if state == api.HealthState_HEALTH_STATE_UNSPECIFIED {
		return nil
	}
	return &Health{Status: word(state.String(), "HEALTH_STATE_"), FailingStreak: log.GetFailingStreak(), Log: resultsOf(log)}
}

func resultsOf(log *api.ProbeLog) []HealthResult {
	out := []HealthResult{}
	for _, r := range log.GetResults() {
		out = append(out, HealthResult{Start: timeOf(r.GetStart()), End: timeOf(r.GetEnd()), ExitCode: r.GetExitCode(), Output: r.GetOutput()})
	}
	return out
}
