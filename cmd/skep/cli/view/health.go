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

// newCheck returns nil for no check.
func newCheck(h *api.HealthConfig) *Healthcheck {
	if h == nil {
		return nil
	}
	return &Healthcheck{
		Test: h.GetTest(), Interval: durationOf(h.GetInterval()), Timeout: durationOf(h.GetTimeout()),
		StartPeriod: durationOf(h.GetStartPeriod()), StartInterval: durationOf(h.GetStartInterval()), Retries: h.GetRetries(),
	}
}

// Readiness is whether a task is to have work, as its checks say. Docker has none.
type Readiness struct {
	Ready bool
	// ReadyAt is when it became so last, and LostAt when it was so no more.
	ReadyAt       *time.Time `json:",omitempty"`
	LostAt        *time.Time `json:",omitempty"`
	FailingStreak uint32
	// Log has the last five results as the node told them, the oldest first.
	Log []HealthResult
}

// newReadiness returns nil for a task that is not checked, or never ran. One that has ended is not ready.
func newReadiness(s *api.TaskStatus) *Readiness {
	r := s.GetReadiness()
	if r == nil {
		return nil
	}
	out := &Readiness{Ready: Ready(s), FailingStreak: r.GetChecks().GetFailingStreak(), Log: resultsOf(r.GetChecks())}
	if at := r.GetReadyAt(); at != nil {
		out.ReadyAt = new(timeOf(at))
	}
	if at := r.GetLostAt(); at != nil {
		out.LostAt = new(timeOf(at))
	}
	return out
}

// Ready reports whether a task runs, and is to have work if its readiness is checked.
func Ready(s *api.TaskStatus) bool {
	return s.GetState() == api.TaskState_TASK_STATE_RUNNING && (s.GetReadiness() == nil || s.GetReadiness().GetReady())
}
