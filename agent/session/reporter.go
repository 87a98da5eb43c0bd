package session

import (
	"slices"
	"time"

	"github.com/skep-io/skep/api"
)

// reportBatch is the most statuses in one request; Docker Swarm's.
const reportBatch = 1024

const (
	// reportPeriod is the least time from one request to the next: what comes meanwhile shares the next one, so that many tasks that start
	// together cost managers a hundred writes a second at most.
	reportPeriod = 10 * time.Millisecond
	// passingWait is how long a status waits that its task only passes through (see passing), which nobody can act on: most tasks run before
	// that, and managers need not write it at all.
	passingWait = 100 * time.Millisecond
)

// reporter has the statuses that no manager acknowledged yet (S1), and decides when they are sent.
type reporter struct {
	// pending has the newest status of each task; order has its keys, oldest first.
	pending map[string]*api.TaskStatus
	order   []string
	// resting is how many of them are not passing.
	resting int
	// since is when the first of pending came, as far as it was not there at the last request, and sent when that was.
	since, sent time.Time
}

// passing says whether a task that is well leaves a state by itself.
func passing(s *api.TaskStatus) bool { return s.GetState() < api.TaskState_TASK_STATE_RUNNING }

// add takes in a status of a task, unless a newer one waits already.
func (r *reporter) add(now time.Time, id string, s *api.TaskStatus) {
	if r.pending == nil {
		r.pending = map[string]*api.TaskStatus{}
	}
	old, ok := r.pending[id]
	if ok && newer(old, s) {
		return
	}
	if len(r.order) == 0 {
		r.since = now
	}
	if !ok {
		r.order = append(r.order, id)
	} else if !passing(old) {
		r.resting--
	}
	if !passing(s) {
		r.resting++
	}
	r.pending[id] = s
}

// due returns when the next request is to be sent, or zero when there is nothing to send.
func (r *reporter) due() time.Time {
	if len(r.order) == 0 {
		return time.Time{}
	}
	at := r.sent.Add(reportPeriod)
	if last := r.since.Add(passingWait); r.resting == 0 && last.After(at) {
		at = last
	}
	return at
}

// newer says whether a status is from later in a task's life than another. States never go backwards.
func newer(a, b *api.TaskStatus) bool {
	if a.GetState() != b.GetState() {
		return a.GetState() > b.GetState()
	}
	return a.GetTimestamp().AsTime().After(b.GetTimestamp().AsTime())
}

// batch returns what to send now, oldest first.
func (r *reporter) batch(now time.Time) []*api.TaskStatusUpdate {
	r.sent, r.since = now, now
	var out []*api.TaskStatusUpdate
	for _, id := range r.order[:min(len(r.order), reportBatch)] {
		out = append(out, &api.TaskStatusUpdate{TaskId: id, Status: r.pending[id]})
	}
	return out
}

// acknowledge drops what a manager has, unless there is a newer status by now.
func (r *reporter) acknowledge(sent []*api.TaskStatusUpdate) {
	done := map[string]bool{}
	for _, u := range sent {
		if r.pending[u.GetTaskId()] != u.GetStatus() {
			continue
		}
		done[u.GetTaskId()] = true
		delete(r.pending, u.GetTaskId())
		if !passing(u.GetStatus()) {
			r.resting--
		}
	}
	r.order = slices.DeleteFunc(r.order, func(id string) bool { return done[id] })
}
