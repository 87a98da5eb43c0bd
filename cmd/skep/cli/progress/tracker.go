package progress

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli/view"
)

const (
	// DefaultMonitor is how long a service must be whole to count as converged: Docker's default.
	DefaultMonitor = 5 * time.Second

	// verifyKey begins the line about the time after all tasks run.
	verifyKey = "verify"
	// maxBars is the number of replicas above which only the sum is shown: Docker's, and fewer than a screen's lines.
	maxBars = 20

	// barWidth is the number of characters between the brackets of a bar, beside the arrow.
	barWidth = 50
)

// Snapshot is a service with its tasks at one moment.
type Snapshot struct {
	Service *api.Service
	Tasks   []*api.Task
	// Counts say how many tasks there are to be. Nil by managers that don't say.
	Counts *api.ServiceCounts
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
	// Failure is why the service ended without converging, or "", and Failed the task of which that is true.
	Failure string
	Failed  *api.Task
	// Stopped is why the update was paused or rolled back, or "".
	Stopped string
	// Wake is how long to wait for the next snapshot; 0 is for ever.
	Wake time.Duration
}

// Tracker decides how far a service is.
type Tracker struct {
	// Constant after New.
	version uint64
	monitor time.Duration
	// back says that the caller asked for a rollback.
	back bool

	// Owned by Step.
	last *Snapshot
	// rolledBack is why the service goes back although nobody asked for it, or "".
	rolledBack string
	// phase is what the service is now, and since when.
	phase phase
	since time.Time
	broke bool
}

// phase is what a service is at one moment.
type phase int

const (
	// waiting is a service that lacks tasks which are still to come.
	waiting phase = iota
	// whole is a service all of whose replicas run, and are ready.
	whole
	// ended is a service whose replicas all ended, and have no successors.
	ended
)

// NewTracker waits for a service that was written at version, and that must be whole for the monitor period.
func NewTracker(version uint64, monitor time.Duration) *Tracker {
	return &Tracker{version: version, monitor: monitor}
}

// Wanted says that a rollback of the service is what the caller waits for.
func (t *Tracker) Wanted() *Tracker {
	t.back = true
	return t
}

// Step takes a snapshot, or nil when only time went by, and says what to show.
func (t *Tracker) Step(now time.Time, snapshot *Snapshot) View {
	if snapshot != nil && snapshot.Service.GetMeta().GetVersion() >= t.version { // I1
		t.last = snapshot
	}
	if t.last == nil {
		return View{}
	}
	if IsJob(t.last.Service) {
		return t.job()
	}
	slots := slotsOf(t.last, t.replicas())
	view := View{Lines: t.taskLines(slots)}
	if next := t.phaseOf(slots); next != t.phase {
		t.broke = t.broke || t.phase == whole
		t.phase, t.since = next, now
	}
	t.update(&view)
	if view.Stopped == "" {
		t.verify(now, slots, &view)
	}
	return view
}

// update says what becomes of the update, beside its tasks.
func (t *Tracker) update(view *View) {
	status := t.last.Service.GetUpdateStatus()
	switch status.GetState() {
	case api.UpdateState_UPDATE_STATE_PAUSED, api.UpdateState_UPDATE_STATE_ROLLBACK_PAUSED:
		view.Stopped = cmp.Or(status.GetMessage(), "it is paused")
	case api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED:
		if !t.back {
			t.rolledBack = cmp.Or(status.GetMessage(), "it is rolled back")
		}
	}
	if t.rolledBack != "" {
		view.Lines = append(view.Lines, Line{Key: "rollback", Text: t.rolledBack})
	}
}

// replacing reports whether tasks are still replaced, or watched.
func (t *Tracker) replacing() bool {
	state := t.last.Service.GetUpdateStatus().GetState()
	return state == api.UpdateState_UPDATE_STATE_UPDATING || state == api.UpdateState_UPDATE_STATE_ROLLBACK_STARTED
}

// verify adds the last line: how long the service must stay as it is (I3).
func (t *Tracker) verify(now time.Time, slots []slot, view *View) {
	say := func(format string, args ...any) {
		view.Lines = append(view.Lines, Line{Key: verifyKey, Text: fmt.Sprintf(format, args...)})
	}
	left := t.monitor - now.Sub(t.since)
	switch {
	case t.phase == waiting && t.broke && slices.ContainsFunc(slots, slot.unready):
		say("Detected a task that is not ready")
	case t.phase == waiting:
		if t.broke {
			say("Detected task failure")
		}
	case left > 0:
		seconds := (left + time.Second - 1) / time.Second
		view.Wake = left - (seconds-1)*time.Second
		if t.phase == whole {
			say("Waiting %d seconds to verify that tasks are stable...", seconds)
		}
	case t.phase == whole && t.replacing():
		say("Waiting until the managers call it done...")
	case t.phase == whole && t.rolledBack != "":
		view.Stopped = t.rolledBack
	case t.phase == whole:
		view.Converged = true
		say("Service %s converged", t.last.Service.GetId())
	default:
		view.Failed, view.Failure = endOf(slots)
		view.Converged = view.Failed == nil
		say("Service %s ended", t.last.Service.GetId())
	}
}

// phaseOf says what the service is.
func (t *Tracker) phaseOf(slots []slot) phase {
	if uint64(len(slots)) != t.replicas() {
		return waiting
	}
	switch {
	case ready(slots) == t.replicas():
		return whole
	case !t.replacing() && !slices.ContainsFunc(slots, slot.lives):
		return ended
	}
	return waiting
}

// endOf returns the first task that did not end well, of a service that ended, and how it failed; nil if all ended well.
func endOf(slots []slot) (failed *api.Task, failure string) {
	for _, s := range slots {
		task := cmp.Or(s.task, s.last)
		if status := task.GetStatus(); status.GetState() != api.TaskState_TASK_STATE_COMPLETE {
			return task, cmp.Or(firstLine(status.GetErr()), "a task "+stateName(status.GetState()))
		}
	}
	return nil, ""
}

// replicas is how many tasks there are to be: as many as nodes that fit, for a global service.
func (t *Tracker) replicas() uint64 {
	if t.global() {
		return t.last.Counts.GetDesired()
	}
	return t.last.Service.GetSpec().GetReplicated().GetReplicas()
}

func (t *Tracker) global() bool { return t.last.Service.GetSpec().GetGlobal() != nil }

// slot is one place for a task of the present spec (I2).
type slot struct {
	number uint64
	// task is the newest that is wanted, or nil.
	task *api.Task
	// last is the newest that ended, or nil.
	last *api.Task
}

// lives reports whether a task of the slot may still run: one that is wanted, or the successor that the managers make, or decide against,
// for a wanted one that has ended. They do so late where a node rejects a task that waits for its restart delay.
func (s slot) lives() bool { return s.task != nil }

// unready reports whether the slot's task runs without being ready.
func (s slot) unready() bool {
	status := s.task.GetStatus()
	return status.GetState() == api.TaskState_TASK_STATE_RUNNING && !view.Ready(status)
}

func ready(slots []slot) uint64 {
	n := uint64(0)
	for _, s := range slots {
		if view.Ready(s.task.GetStatus()) {
			n++
		}
	}
	return n
}

// slotsOf returns the slots with a wanted task, and, up to the number of replicas, those whose task ended by itself and
// that have no other. They are in the order of their numbers.
func slotsOf(s *Snapshot, replicas uint64) []slot {
	byNumber := map[uint64]slot{}
	for _, task := range s.Tasks {
		if task.GetSpecVersion() != s.Service.GetSpecVersion() {
			continue
		}
		place := byNumber[task.GetSlot()]
		place.number = task.GetSlot()
		switch {
		case task.GetDesiredState() <= api.TaskState_TASK_STATE_RUNNING:
			place.task = newer(place.task, task)
		case endedByItself(task):
			place.last = newer(place.last, task)
		default:
			continue
		}
		byNumber[task.GetSlot()] = place
	}
	var wanted, past []slot
	for _, number := range slices.Sorted(maps.Keys(byNumber)) {
		if place := byNumber[number]; place.task != nil {
			wanted = append(wanted, place)
		} else {
			past = append(past, place)
		}
	}
	if missing := replicas - min(replicas, uint64(len(wanted))); uint64(len(past)) > missing {
		past = past[:missing]
	}
	all := append(wanted, past...)
	slices.SortFunc(all, func(a, b slot) int { return cmp.Compare(a.number, b.number) })
	return all
}

// endedByItself reports whether a task ended without being told to.
func endedByItself(task *api.Task) bool {
	state := task.GetStatus().GetState()
	return state > api.TaskState_TASK_STATE_RUNNING && state != api.TaskState_TASK_STATE_SHUTDOWN &&
		task.GetDesiredState() < api.TaskState_TASK_STATE_REMOVE
}

// newer returns the task that was made last; a may be nil.
func newer(a, b *api.Task) *api.Task {
	if a == nil || a.GetMeta().GetCreatedAt().AsTime().Before(b.GetMeta().GetCreatedAt().AsTime()) {
		return b
	}
	return a
}

// taskLines says how many tasks run and are ready, and for few of them how far each is.
func (t *Tracker) taskLines(slots []slot) []Line {
	replicas := t.replicas()
	lines := []Line{{Key: "overall progress", Text: fmt.Sprintf("%d out of %d tasks", min(ready(slots), replicas), replicas)}}
	if replicas > maxBars {
		return lines
	}
	for i := range replicas {
		switch {
		case i < uint64(len(slots)):
			lines = append(lines, slots[i].line(i+1, replicas))
		case !t.global(): // else which node it will be on is not known
			lines = append(lines, Line{Key: lineKey(i+1, replicas)})
		}
	}
	return lines
}

// line says how far the slot is, which is shown as number out of total, or by the only node that it may be on.
func (s slot) line(number, total uint64) Line {
	line := Line{Key: lineKey(number, total)}
	if id := cmp.Or(s.task, s.last).GetBoundNodeId(); id != "" {
		line.Key = view.ShortID(id)
	}
	line.Text, line.Bar = s.text()
	return line
}

func lineKey(number, total uint64) string { return fmt.Sprintf("%d/%d", number, total) }

// text says a task's state with a bar, or what keeps it from running: its own error, or how the one before it failed.
func (s slot) text() (text, bar string) {
	status := s.task.GetStatus()
	state := status.GetState()
	if !view.Ready(status) {
		why := cmp.Or(status.GetErr(), s.last.GetStatus().GetErr())
		if s.unready() { // what was before it is no reason
			why = cmp.Or(status.GetErr(), "running, not ready yet")
		}
		if why != "" {
			return firstLine(why), ""
		}
	}
	if s.task == nil {
		return stateName(s.last.GetStatus().GetState()), ""
	}
	states := states()
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
