package session

import (
	"slices"

	"github.com/skep-io/skep/api"
)

// reportBatch is the most statuses in one request; Docker Swarm's.
const reportBatch = 1024

// reporter has the statuses that no manager acknowledged yet (S1).
type reporter struct {
	// pending has the newest status of each task; order has its keys, oldest first.
	pending map[string]*api.TaskStatus
	order   []string
}

// add takes in a status of a task, unless a newer one waits already.
func (r *reporter) add(id string, s *api.TaskStatus) {
	if r.pending == nil {
		r.pending = map[string]*api.TaskStatus{}
	}
	old, ok := r.pending[id]
	if ok && newer(old, s) {
		return
	}
	if !ok {
		r.order = append(r.order, id)
	}
	r.pending[id] = s
}

// newer says whether a status is from later in a task's life than another. States never go backwards.
func newer(a, b *api.TaskStatus) bool {
	if a.GetState() != b.GetState() {
		return a.GetState() > b.GetState()
	}
	return a.GetTimestamp().AsTime().After(b.GetTimestamp().AsTime())
}

// batch returns what to send next, or nil.
func (r *reporter) batch() []*api.TaskStatusUpdate {
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
		if r.pending[u.GetTaskId()] == u.GetStatus() {
			done[u.GetTaskId()] = true
			delete(r.pending, u.GetTaskId())
		}
	}
	r.order = slices.DeleteFunc(r.order, func(id string) bool { return done[id] })
}
