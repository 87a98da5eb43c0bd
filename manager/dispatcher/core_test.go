package dispatcher

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
)

func start() time.Time { return time.Unix(1000, 0) }

func after(seconds float64) time.Time {
	return start().Add(time.Duration(seconds * float64(time.Second)))
}

func TestSessions_RegisterEndsTheFormerOne(t *testing.T) {
	c := newSessions()
	first, err := c.register("n1", "a", introduction{at: start()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.register("n1", "b", introduction{at: start()}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.ended:
	default:
		t.Error("the former session goes on")
	}
	if !errors.Is(first.cause, errSuperseded) {
		t.Errorf("it ended for %v", first.cause)
	}
	if _, err := c.find("n1", "a"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("its id: got %v, want Invalid", err)
	}
	if _, err := c.find("n2", "b"); fault.KindOf(err) != fault.Invalid {
		t.Errorf("another node's id: got %v, want Invalid", err)
	}
	if _, err := c.find("n1", "b"); err != nil {
		t.Errorf("the new one: %v", err)
	}
	// What ended late must not take the new one with it.
	c.end(first, errClosed)
	if _, err := c.find("n1", "b"); err != nil {
		t.Errorf("the new one, after the former one ended again: %v", err)
	}
}

func TestSessions_RegisterIsLimited(t *testing.T) {
	c := newSessions()
	register := func(node string, at float64) fault.Kind {
		_, err := c.register(node, fmt.Sprint(at), introduction{at: after(at)})
		if err == nil {
			return -1
		}
		return fault.KindOf(err)
	}
	for _, tt := range []struct {
		node string
		at   float64
		want fault.Kind
	}{
		{"n1", 0, -1},
		{"n1", 1, -1},
		{"n1", 2, -1},
		{"n1", 3, fault.Unavailable},
		{"n2", 3, -1},
		{"n1", 7.9, fault.Unavailable},
		{"n1", 8, -1},
		{"n1", 8.5, fault.Unavailable},
		{"n1", 9, -1},
	} {
		if got := register(tt.node, tt.at); got != tt.want {
			t.Errorf("%s at %v: got %v, want %v", tt.node, tt.at, got, tt.want)
		}
	}
	if _, err := c.register("n3", "x", introduction{at: after(100)}); err != nil {
		t.Fatal(err)
	}
	if len(c.registered) != 1 {
		t.Errorf("registrations of %d nodes are kept, want 1", len(c.registered))
	}
}

const period = 5 * time.Second

func fallen(l *liveness, at float64) []string {
	ids, _ := l.step(after(at), period)
	return ids
}

func TestLiveness(t *testing.T) {
	l := newLiveness(start(), period, []string{"a", "b", "c"})
	for at := 5.0; at < 25; at += 5 {
		l.hear(after(at), period, "a", after(at))
		if got := fallen(l, at); got != nil {
			t.Errorf("at %v: %v are down although the leader is new", at, got)
		}
	}
	l.hear(after(24), period, "a", after(24))
	l.hear(after(24), period, "d", after(24))
	if got := fallen(l, 25); !slices.Equal(got, []string{"b", "c"}) {
		t.Errorf("got %v, want b and c: they were not heard for five periods", got)
	}
	if got := fallen(l, 30); got != nil {
		t.Errorf("got %v, which was said before", got)
	}
	for at := 31.0; at < 39; at++ {
		if got := fallen(l, at); got != nil {
			t.Errorf("at %v: %v are down too early", at, got)
		}
	}
	if got := fallen(l, 39); !slices.Equal(got, []string{"a", "d"}) {
		t.Errorf("got %v, want a and d: three periods", got)
	}
	if !l.hear(after(40), period, "a", after(26)) || l.hear(after(41), period, "b", after(26)) {
		t.Error("news that are three periods old don't make a node alive, younger ones do")
	}
	if got := fallen(l, 41); !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %v, want a, which came back with old news", got)
	}
}

func TestLiveness_StoppedLeaderBlamesNobody(t *testing.T) {
	l := newLiveness(start(), period, []string{"a"})
	for at := 0.0; at <= 30; at += 2.5 {
		l.hear(after(at), period, "a", after(at))
		fallen(l, at)
	}
	if got := fallen(l, 300); got != nil {
		t.Errorf("after a stop of minutes %v are down", got)
	}
	l.hear(after(301), period, "a", after(301))
	for at := 301.0; at < 325; at += 2.5 {
		if got := fallen(l, at); got != nil {
			t.Errorf("at %v: %v are down", at, got)
		}
	}
	if got := fallen(l, 326); !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %v, want a", got)
	}
}

func TestLiveness_AnotherPeriodBlamesNobodyAtOnce(t *testing.T) {
	l := newLiveness(start(), time.Hour, []string{"a", "b"})
	if got := fallen(l, 1800); got != nil {
		t.Errorf("when the period shrank %v are down", got)
	}
	for at := 1805.0; at < 1825; at += 5 {
		l.hear(after(at), period, "a", after(at))
		if got := fallen(l, at); got != nil {
			t.Errorf("at %v: %v are down", at, got)
		}
	}
	if got := fallen(l, 1825); !slices.Equal(got, []string{"b"}) {
		t.Errorf("got %v, want b: it was not heard for five of the new periods", got)
	}
}

func TestLiveness_SaysWhenToAskAgain(t *testing.T) {
	l := newLiveness(start(), period, nil)
	l.step(after(20), period) // twice the period: a stop
	for at := 25.0; at <= 45; at += 5 {
		l.step(after(at), period)
	}
	l.hear(after(47), period, "a", after(46))
	l.step(after(50), period)
	l.step(after(55), period)
	if _, next := l.step(after(58), period); !next.Equal(after(61)) {
		t.Errorf("got %v, want a's deadline at 61s", next.Sub(start()))
	}
}

// TestLiveness_WhoWasHeardSinceIsNotSuspected: a machine that comes back while somebody waits for its answer is there.
func TestLiveness_WhoWasHeardSinceIsNotSuspected(t *testing.T) {
	l := newLiveness(start(), period, nil)
	l.hear(after(10), period, "a", after(10))
	if l.suspect(after(10.2), "a", after(9.8)) {
		t.Error("suspected for what was before it was heard")
	}
	if !l.suspect(after(10.6), "a", after(10.1)) {
		t.Error("not suspected for what was after it was heard")
	}
}

// TestLiveness_WhoAnsweredIsTrustedForLongerEachTime: nodes that lie about another must not keep the leader busy.
func TestLiveness_WhoAnsweredIsTrustedForLongerEachTime(t *testing.T) {
	l := newLiveness(start(), period, []string{"a"})
	at := 0.0
	suspect := func() bool {
		if !l.suspect(after(at), "a", after(at)) {
			return false
		}
		l.questioned(after(at), "a")
		l.hear(after(at+0.1), period, "a", after(at+0.1))
		return true
	}
	var accepted []float64
	for ; at < 200; at++ {
		l.hear(after(at), period, "a", after(at))
		if suspect() {
			accepted = append(accepted, at)
		}
		if got := fallen(l, at); got != nil {
			t.Fatalf("at %v: %v are down", at, got)
		}
	}
	if want := []float64{0, 11, 32, 73, 154}; !slices.Equal(accepted, want) {
		t.Errorf("asked at %v, want %v", accepted, want)
	}
	at = 1000 // nobody suspected it for long
	l.hear(after(at), period, "a", after(at))
	suspect()
	at = 1011
	if !l.suspect(after(at), "a", after(at)) {
		t.Error("it is trusted for long again, though it was not suspected meanwhile")
	}
	if l.suspect(after(at), "a", after(at)) || l.suspect(after(at), "b", after(at)) {
		t.Error("asked twice, or one that nobody heard of")
	}
	l.questioned(after(at), "a")
	l.hear(after(at+0.5), period, "a", after(at-0.5)) // old news are no answer
	if _, next := l.step(after(at+0.5), period); !next.Equal(after(at + 1)) {
		t.Errorf("to be asked again after %v, want 1s after the question", next.Sub(after(at)))
	}
	if got := fallen(l, at+1); !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %v, want a, which did not answer", got)
	}
}

func status(task string, state api.TaskState) *api.TaskStatusUpdate {
	return &api.TaskStatusUpdate{TaskId: task, Status: &api.TaskStatus{State: state}}
}

func TestOutbox_KeepsOrderAndTheNewestNews(t *testing.T) {
	o := newOutbox()
	o.register("n1", introduction{at: after(1), address: "10.0.0.1", description: &api.NodeDescription{Hostname: "old"}})
	o.hear("n1", after(1))
	first, err := o.report("n1", []*api.TaskStatusUpdate{status("t", api.TaskState_TASK_STATE_ACCEPTED)})
	if err != nil {
		t.Fatal(err)
	}
	b := o.take()
	if o.urgent || !o.empty() {
		t.Error("take left something behind")
	}
	o.hear("n1", after(5))
	o.describe("n1", &api.NodeDescription{Hostname: "new"}, nil)
	if _, err := o.report("n1", []*api.TaskStatusUpdate{status("t", api.TaskState_TASK_STATE_RUNNING)}); err != nil {
		t.Fatal(err)
	}
	o.putBack(b)
	b = o.take()
	reports := b.reports(after(6))
	if len(reports) != 1 {
		t.Fatalf("got %d reports, want 1", len(reports))
	}
	r := reports[0]
	var states []api.TaskState
	for _, s := range r.GetStatuses() {
		states = append(states, s.GetStatus().GetState())
	}
	if diff := cmp.Diff([]api.TaskState{api.TaskState_TASK_STATE_ACCEPTED, api.TaskState_TASK_STATE_RUNNING}, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if r.GetDescription().GetHostname() != "new" || r.GetHeardAgo().AsDuration() != time.Second || r.GetAddress() != "10.0.0.1" ||
		!r.GetRegisteredAt().AsTime().Equal(after(1)) {
		t.Errorf("got %v", r)
	}
	b.settle(nil)
	if err := <-first.done; err != nil {
		t.Errorf("the first letter: %v", err)
	}
}

func TestOutbox_IsBounded(t *testing.T) {
	o := newOutbox()
	many := make([]*api.TaskStatusUpdate, maxUpdates)
	for i := range many {
		many[i] = status("t", api.TaskState_TASK_STATE_RUNNING)
	}
	var letters []*letter
	for range maxPending / maxUpdates {
		l, err := o.report("n1", many)
		if err != nil {
			t.Fatal(err)
		}
		letters = append(letters, l)
	}
	if _, err := o.report("n1", many[:1]); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("one more: got %v, want Unavailable", err)
	}
	for _, l := range letters[1:] {
		l.abandoned = true
	}
	if got := len(o.take().reports(start())[0].GetStatuses()); got != maxUpdates {
		t.Errorf("the first batch has %d statuses, want the %d of one letter", got, maxUpdates)
	}
	if got := len(o.take().letters); got != 0 {
		t.Errorf("%d letters that nobody waits for are sent", got)
	}
	if o.statuses != 0 || !o.empty() {
		t.Errorf("%d statuses are left", o.statuses)
	}
}

// apply is what an agent does with changes.
func apply(a assignment, changes []*api.AssignmentChange) assignment {
	out := assignment{tasks: map[string]*api.Task{}, values: map[string]value{}}
	for id, t := range a.tasks {
		out.tasks[id] = t
	}
	for id, s := range a.values {
		out.values[id] = s
	}
	for _, c := range changes {
		remove := c.GetAction() == api.AssignmentAction_ASSIGNMENT_ACTION_REMOVE
		switch {
		case c.GetTask() != nil && remove:
			delete(out.tasks, c.GetTask().GetId())
		case c.GetTask() != nil:
			out.tasks[c.GetTask().GetId()] = c.GetTask()
		case remove:
			delete(out.values, c.GetSecret().GetId())
		default:
			out.values[c.GetSecret().GetId()] = value{of: c.GetSecret()}
		}
	}
	return out
}

func drawAssignment(t *rapid.T) assignment {
	a := assignment{tasks: map[string]*api.Task{}, values: map[string]value{}}
	for i := range 5 {
		if rapid.Bool().Draw(t, "task") {
			a.tasks[fmt.Sprint("t", i)] = &api.Task{
				Id: fmt.Sprint("t", i), Meta: &api.Meta{Version: rapid.Uint64Range(1, 3).Draw(t, "version")},
				DesiredState: rapid.SampledFrom([]api.TaskState{api.TaskState_TASK_STATE_RUNNING, api.TaskState_TASK_STATE_SHUTDOWN}).Draw(t, "desired"),
				Status:       &api.TaskStatus{State: rapid.SampledFrom([]api.TaskState{api.TaskState_TASK_STATE_ASSIGNED, api.TaskState_TASK_STATE_FAILED}).Draw(t, "state")},
			}
		}
		if rapid.Bool().Draw(t, "secret") {
			a.values[fmt.Sprint("s", i)] = value{of: &api.Secret{
				Id: fmt.Sprint("s", i), Spec: &api.SecretSpec{Data: []byte{byte(rapid.IntRange(0, 1).Draw(t, "data"))}},
			}}
		}
		if rapid.Bool().Draw(t, "config") {
			a.values[fmt.Sprint("c", i)] = value{of: &api.Config{
				Id: fmt.Sprint("c", i), Spec: &api.ConfigSpec{Data: []byte{byte(rapid.IntRange(0, 1).Draw(t, "data"))}},
			}}
		}
	}
	return a
}

// TestChanges_TurnOneIntoTheOther: apply(changes(a, b), a) = b, but for what the node reported itself; and no change is
// made without need.
func TestChanges_TurnOneIntoTheOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawAssignment(t), drawAssignment(t)
		news := changes(a, b)
		got := apply(a, news)
		if rest := changes(got, b); len(rest) > 0 || len(got.tasks) != len(b.tasks) || len(got.values) != len(b.values) {
			t.Fatalf("%v are left to change", rest)
		}
		for i := range news {
			without := slices.Delete(slices.Clone(news), i, i+1)
			if len(changes(apply(a, without), b)) == 0 {
				t.Fatalf("change %v was not needed", news[i])
			}
		}
	})
}
