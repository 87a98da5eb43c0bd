package restart

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"time"

	"github.com/skep-io/skep/api"
)

const (
	// defaultDelay is the delay of a policy that names none, as Docker's.
	defaultDelay = 5 * time.Second
	// defaultMaxDelay is the longest delay of a back-off that names none, as Kubernetes'.
	defaultMaxDelay = 5 * time.Minute
	// jitter is the part of a delay, at most, by which a back-off shortens it: tasks that failed together don't start together.
	jitter = 0.25
)

// delay is how long next, which follows t, has to wait. It is the same whoever asks: the chance in it is the task's id.
func delay(t, next *api.Task) time.Duration {
	base := baseDelay(t)
	if t.GetSpec().GetRestart().GetBackoff() != api.RestartBackoff_RESTART_BACKOFF_EXPONENTIAL {
		return base
	}
	grown := float64(base) * math.Pow(2, float64(max(next.GetRestartCount(), 1)-1))
	grown = math.Min(grown, float64(max(maxDelay(t), base)))
	return time.Duration(grown * (1 - jitter*fraction(next.GetId())))
}

func baseDelay(t *api.Task) time.Duration {
	if d := t.GetSpec().GetRestart().GetDelay(); d != nil {
		return d.AsDuration()
	}
	return defaultDelay
}

func maxDelay(t *api.Task) time.Duration {
	if d := t.GetSpec().GetRestart().GetMaxDelay(); d != nil {
		return d.AsDuration()
	}
	return defaultMaxDelay
}

// countAfter is the restart count of the task that follows t.
func countAfter(t *api.Task) uint64 {
	began, ended := t.GetStatus().GetRunningAt(), t.GetStatus().GetEndedAt()
	if began != nil && ended != nil && ended.AsTime().Sub(began.AsTime()) >= maxDelay(t) {
		return 1
	}
	return t.GetRestartCount() + 1
}

// fraction makes a number from 0 to 1 of an id.
func fraction(id string) float64 {
	sum := sha256.Sum256([]byte(id))
	return float64(binary.BigEndian.Uint32(sum[:])) / math.MaxUint32
}
