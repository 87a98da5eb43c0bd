package backup

import (
	"time"

	"github.com/skep-io/skep/api"
)

const (
	// MinInterval is the shortest time between two scheduled backups.
	MinInterval = time.Hour
	// DefaultRetention is how many scheduled backups a manager keeps unless told otherwise.
	DefaultRetention = 7
	// retryAfter is how long a failed backup waits before the next try: a full disk does not clear in a moment.
	retryAfter = 10 * time.Minute
	// maxSkew is how far clocks of managers may differ. A backup from further in the future was made before a clock was set back.
	maxSkew = 5 * time.Minute
)

// State is what a decision about scheduled backups depends on. All of it is in the store.
type State struct {
	// Interval is the time between two backups; 0 is none.
	Interval time.Duration
	// Last is when the last one was made, and Failed when one failed since; zero for never.
	Last, Failed time.Time
}

// stateOf returns the state that a cluster is in; nil for one that is not there yet.
func stateOf(cluster *api.Cluster) State {
	s := State{Interval: cluster.GetSpec().GetBackupInterval().AsDuration()}
	if last := cluster.GetBackup().GetScheduled(); last != nil {
		s.Last = last.GetCreatedAt().AsTime()
	}
	if failed := cluster.GetBackup().GetFailedAt(); failed != nil {
		s.Failed = failed.AsTime()
	}
	return s
}

// Step says whether a backup is due, and if not, when to ask again unless the state changes; zero is never.
func Step(now time.Time, s State) (due bool, next time.Time) {
	if s.Interval <= 0 {
		return false, time.Time{}
	}
	next = now
	if !s.Last.IsZero() && !s.Last.After(now.Add(maxSkew)) {
		next = s.Last.Add(s.Interval)
	}
	if again := s.Failed.Add(retryAfter); !s.Failed.IsZero() && !s.Failed.After(now.Add(maxSkew)) && again.After(next) {
		next = again
	}
	if next.After(now) {
		return false, next
	}
	return true, time.Time{}
}
