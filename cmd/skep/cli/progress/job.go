package progress

import (
	"fmt"
	"slices"

	"github.com/skep-io/skep/api"
)

// IsJob reports whether a service's tasks are to end, and then to stay so.
func IsJob(s *api.Service) bool {
	return s.GetSpec().GetReplicatedJob() != nil || s.GetSpec().GetGlobalJob() != nil
}

// job says how far a job is: it is done when all its slots ended well, and has failed when nothing runs any more and some did not.
func (t *Tracker) job() View {
	total := t.last.Counts.GetTotal()
	slots := slotsOf(t.last, total)
	completed, active, failed := uint64(0), uint64(0), uint64(0)
	for _, s := range slots {
		switch {
		case s.completed():
			completed++
		case s.task != nil:
			active++
		default:
			failed++
		}
	}
	view := View{Lines: []Line{
		{Key: "job progress", Text: fmt.Sprintf("%d out of %d complete", min(completed, total), total)},
		{Key: "active tasks", Text: fmt.Sprintf("%d out of %d tasks", ready(slots), active)},
	}}
	if total <= maxBars {
		for i, s := range slots {
			line := s.line(uint64(i+1), total)
			if s.completed() {
				line.Text, line.Bar = stateName(api.TaskState_TASK_STATE_COMPLETE), ""
			}
			view.Lines = append(view.Lines, line)
		}
	}
	switch {
	case completed >= total:
		view.Converged = true
		view.Lines = append(view.Lines, Line{Key: "job", Text: "Service " + t.last.Service.GetId() + " completed"})
	case active == 0 && completed+failed >= total:
		view.Failed, view.Failure = endOf(slices.DeleteFunc(slots, slot.completed))
	}
	return view
}

// completed reports whether a task of the slot ended well.
func (s slot) completed() bool {
	const complete = api.TaskState_TASK_STATE_COMPLETE
	return s.task.GetStatus().GetState() == complete || s.last.GetStatus().GetState() == complete
}
