package progress

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/skep-io/skep/api"
)

const (
	// DefaultMonitor is how long a service must be whole to count as converged: Docker's default.
	DefaultMonitor = 5 * time.Second

	// maxBars is the number of replicas above which only the sum is shown: Docker's, and fewer than a screen's lines.
	maxBars = 20

	// barWidth is the number of characters between the brackets of a bar, beside the arrow.
	barWidth = 50
)

// Snapshot is a service with its tasks at one moment.
type Snapshot struct {
	Service *api.Service
	Tasks   []*api.Task
}

// Line is one line of the display. Lines with the same key replace each other.
type Line struct {
	Key string
	// Text is what the line says.
	Text string
	// Bar is drawn behind the text, or "".
	Bar string
}

// View is what to show and what to do next.
type View struct {
	Lines []Line
	// Converged says that the wait is over.
	Converged bool
	// Wake is how long to wait for the next snapshot; 0 is for ever.
	Wake time.Duration
}

// Tracker decides how far a service is.
type Tracker struct {
	// Constant after New.
	version uint64
	monitor time.Duration

	// Owned by Step.
	last *Snapshot
	// wholeSince is when the last unbroken wholeness began, or zero.
	wholeSince time.Time
	broke      bool
}

// NewTracker waits for a service that was written at version, and that must be whole for the monitor period.
func NewTracker(version uint64, monitor time.Duration) *Tracker {
	return &Tracker{version: version, monitor: monitor}
}

// Step takes a snapshot, or nil when only time went by, and says what to show.
func (t *Tracker) Step(now time.Time, snapshot *Snapshot) View {
	if snapshot != nil && snapshot.Service.GetMeta().GetVersion() >= t.version { // I1
		t.last = snapshot
	}
	if t.last == nil {
		return View{}
	}
	tasks := current(t.last)
	view := View{Lines: t.taskLines(tasks)}
	switch {
	case t.whole(tasks) && t.wholeSince.IsZero():
		t.wholeSince = now
	case !t.whole(tasks) && !t.wholeSince.IsZero():
		t.wholeSince, t.broke = time.Time{}, true
	}
	t.verify(now, &view)
	return view
}

// verify adds the last line: how long the service must still be whole (I3).
func (t *Tracker) verify(now time.Time, view *View) {
	if t.wholeSince.IsZero() {
		if t.broke {
			view.Lines = append(view.Lines, Line{Key: "verify", Text: "Detected task failure"})
		}
		return
	}
	left := t.monitor - now.Sub(t.wholeSince)
	if left <= 0 {
		view.Converged = true
		view.Lines = append(view.Lines, Line{Key: "verify", Text: fmt.Sprintf("Service %s converged", t.last.Service.GetId())})
		return
	}
	seconds := (left + time.Second - 1) / time.Second
	view.Wake = left - (seconds-1)*time.Second
	view.Lines = append(view.Lines, Line{
		Key: "verify", Text: fmt.Sprintf("Waiting %d seconds to verify that tasks are stable...", seconds),
	})
}

// whole reports whether each replica runs and no update goes on.
func (t *Tracker) whole(tasks []*api.Task) bool {
	return running(tasks) == t.replicas() && uint64(len(tasks)) == t.replicas() &&
		t.last.Service.GetUpdateStatus().GetState() != api.UpdateState_UPDATE_STATE_UPDATING
}

func (t *Tracker) replicas() uint64 { return t.last.Service.GetSpec().GetReplicated().GetReplicas() }

func running(tasks []*api.Task) uint64 {
	n := uint64(0)
	for _, task := range tasks {
		if task.GetStatus().GetState() == api.TaskState_TASK_STATE_RUNNING {
			n++
		}
	}
	return n
}

// current returns the one task that counts of each slot, by slot: of the present spec (I2), wanted, and the newest.
func current(s *Snapshot) []*api.Task {
	bySlot := map[uint64]*api.Task{}
	for _, task := range s.Tasks {
		if task.GetSpecVersion() != s.Service.GetSpecVersion() ||
			task.GetDesiredState() > api.TaskState_TASK_STATE_RUNNING {
			continue
		}
		if other := bySlot[task.GetSlot()]; other == nil || older(other, task) {
			bySlot[task.GetSlot()] = task
		}
	}
	return slices.SortedFunc(maps.Values(bySlot), func(a, b *api.Task) int { return cmp.Compare(a.GetSlot(), b.GetSlot()) })
}

func older(a, b *api.Task) bool {
	return a.GetMeta().GetCreatedAt().AsTime().Before(b.GetMeta().GetCreatedAt().AsTime())
}

// taskLines says how many tasks run, and for few of them how far each is.
func (t *Tracker) taskLines(tasks []*api.Task) []Line {
	replicas := t.replicas()
	lines := []Line{{Key: "overall progress", Text: fmt.Sprintf("%d out of %d tasks", min(running(tasks), replicas), replicas)}}
	if replicas > maxBars {
		return lines
	}
	failures := failures(t.last)
	for i := range replicas {
		line := Line{Key: fmt.Sprintf("%d/%d", i+1, replicas)}
		if i < uint64(len(tasks)) {
			line.Text, line.Bar = taskText(tasks[i], failures[tasks[i].GetSlot()])
		}
		lines = append(lines, line)
	}
	return lines
}

// failures returns by slot why the newest task of the present spec that ended did so. Its successor does not know.
func failures(s *Snapshot) map[uint64]string {
	newest, out := map[uint64]*api.Task{}, map[uint64]string{}
	for _, task := range s.Tasks {
		if task.GetSpecVersion() != s.Service.GetSpecVersion() || task.GetStatus().GetState() <= api.TaskState_TASK_STATE_RUNNING {
			continue
		}
		if other := newest[task.GetSlot()]; other == nil || older(other, task) {
			newest[task.GetSlot()], out[task.GetSlot()] = task, task.GetStatus().GetErr()
		}
	}
	return out
}

// taskText says a task's state with a bar, or what keeps it from running: its own error, or how the one before it failed.
func taskText(task *api.Task, failure string) (text, bar string) {
	if err := task.GetStatus().GetErr(); err != "" {
		return firstLine(err), ""
	}
	if failure != "" && task.GetStatus().GetState() != api.TaskState_TASK_STATE_RUNNING {
		return firstLine(failure), ""
	}
	states := states()
	state := task.GetStatus().GetState()
	at := slices.Index(states, state)
	if at < 0 {
		return stateName(state), ""
	}
	return stateName(state), drawBar(at+1, len(states))
}

// states are those on the way to running, in order.
func states() []api.TaskState {
	return []api.TaskState{
		api.TaskState_TASK_STATE_NEW, api.TaskState_TASK_STATE_PENDING, api.TaskState_TASK_STATE_ASSIGNED,
		api.TaskState_TASK_STATE_ACCEPTED, api.TaskState_TASK_STATE_PREPARING, api.TaskState_TASK_STATE_READY,
		api.TaskState_TASK_STATE_STARTING, api.TaskState_TASK_STATE_RUNNING,
	}
}

func stateName(state api.TaskState) string {
	return strings.ToLower(strings.TrimPrefix(state.String(), "TASK_STATE_"))
}

// drawBar draws done out of total steps.
func drawBar(done, total int) string {
	filled := barWidth * done / total
	return "[" + strings.Repeat("=", filled) + ">" + strings.Repeat(" ", barWidth-filled) + "]"
}

func firstLine(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	return text
}
