package session

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
)

func TestRemotes_GoRoundAndPauseAfterEachRound(t *testing.T) {
	r := newRemotes([]string{"a", "b", "c"}, 4)
	var got []string
	for range 10 {
		a := r.attempt(0)
		got = append(got, fmt.Sprintf("%s after %s within %s", a.address, a.pause, a.connect))
		r.ended(0)
	}
	want := []string{
		"b after 0s within 1s", "c after 0s within 1s", "a after 0s within 1s",
		"b after 100ms within 2s", "c after 0s within 2s", "a after 0s within 2s",
		"b after 200ms within 4s", "c after 0s within 4s", "a after 0s within 4s",
		"b after 400ms within 8s",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
}

func TestRemotes_PausesAreBounded(t *testing.T) {
	r := newRemotes([]string{"a"}, 0)
	for range 100 {
		r.ended(0)
	}
	if a := r.attempt(0); a.pause != backoffMax || a.connect != connectMax {
		t.Errorf("got %+v", a)
	}
	if a := r.attempt(1); a.pause != backoffMax/2 {
		t.Errorf("with jitter: got %+v", a)
	}
}

func TestRemotes_OnlyALastingSessionIsASuccess(t *testing.T) {
	r := newRemotes([]string{"a", "b"}, 0)
	for range 7 {
		r.ended(0)
	}
	r.ended(steady - 1)
	if a := r.attempt(0); a.pause == 0 {
		t.Error("Q5: a session that ended at once reset the back-off")
	}
	r.ended(steady)
	if a := r.attempt(0); a.pause != 0 || a.connect != connectMin {
		t.Errorf("after a lasting session: got %+v", a)
	}
}

func TestRemotes_KeepThePresentManagerWhenTheListChanges(t *testing.T) {
	tests := []struct {
		name string
		set  []string
		want string
	}{
		{"moved", []string{"x", "b", "y"}, "y"},
		{"gone", []string{"x", "y"}, "y"},
		{"empty", nil, "c"},
		{"only one", []string{"x"}, "x"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRemotes([]string{"a", "b", "c"}, 1)
			r.set(test.set)
			r.ended(steady)
			if got := r.attempt(0).address; got != test.want {
				t.Errorf("next is %s, want %s", got, test.want)
			}
		})
	}
}

func TestReporter_KeepsTheNewestUntilAcknowledged(t *testing.T) {
	var r reporter
	now := time.Unix(1, 0)
	one, two := &api.TaskStatus{Message: "1"}, &api.TaskStatus{Message: "2"}
	r.add(now, "t1", one)
	r.add(now, "t2", one)
	sent := r.batch(now)
	r.add(now, "t1", two)
	r.acknowledge(sent)
	got := r.batch(now)
	if len(got) != 1 || got[0].GetTaskId() != "t1" || got[0].GetStatus() != two {
		t.Fatalf("S1: left to send: %v", got)
	}
	r.acknowledge(got)
	if got := r.batch(now); got != nil {
		t.Errorf("left to send: %v", got)
	}
	ended := &api.TaskStatus{State: api.TaskState_TASK_STATE_FAILED}
	r.add(now, "t1", ended)
	r.add(now, "t1", &api.TaskStatus{State: api.TaskState_TASK_STATE_RUNNING})
	if got := r.batch(now); len(got) != 1 || got[0].GetStatus() != ended {
		t.Errorf("I6: an older status took the place of a newer one: %v", got)
	}
	r.acknowledge(r.batch(now))
	for i := range reportBatch + 1 {
		r.add(now, fmt.Sprint(i), one)
	}
	if got := len(r.batch(now)); got != reportBatch {
		t.Errorf("a batch of %d", got)
	}
}

func TestReporter_TellsAtOnceWhatATaskComesTo(t *testing.T) {
	var r reporter
	at := time.Unix(1, 0)
	tell := func(id string, state api.TaskState) { r.add(at, id, &api.TaskStatus{State: state}) }
	due := func(what string, want time.Duration) {
		t.Helper()
		if got := r.due(); got.Sub(at) != want {
			t.Errorf("%s: due after %v, want %v", what, got.Sub(at), want)
		}
	}
	if got := r.due(); !got.IsZero() {
		t.Errorf("with nothing to tell: due at %v", got)
	}
	tell("t1", api.TaskState_TASK_STATE_PREPARING)
	due("a state on the way", passingWait)
	began := at
	at = at.Add(passingWait / 2)
	tell("t1", api.TaskState_TASK_STATE_STARTING)
	due("another one, later", began.Add(passingWait).Sub(at))
	tell("t1", api.TaskState_TASK_STATE_RUNNING)
	if got := r.due(); got.After(at) {
		t.Errorf("a task that runs: due after %v, want now", got.Sub(at))
	}
	sent := r.batch(at)
	tell("t2", api.TaskState_TASK_STATE_FAILED)
	due("another task's end, just after", reportPeriod)
	r.acknowledge(sent)
	due("the same, with the request answered", reportPeriod)
	tell("t3", api.TaskState_TASK_STATE_STARTING)
	r.acknowledge(r.batch(at))
	if got := r.due(); !got.IsZero() {
		t.Errorf("with everything acknowledged: due at %v", got)
	}
	tell("t4", api.TaskState_TASK_STATE_ACCEPTED)
	due("a state on the way, after all that", passingWait)
}

func TestSequence_RefusesGaps(t *testing.T) {
	complete := func(in uint64) *api.AssignmentsResponse {
		return &api.AssignmentsResponse{Complete: true, ResultsIn: in}
	}
	change := func(to, in uint64) *api.AssignmentsResponse {
		return &api.AssignmentsResponse{AppliesTo: to, ResultsIn: in}
	}
	tests := []struct {
		name     string
		messages []*api.AssignmentsResponse
		gap      bool
	}{
		{"follows", []*api.AssignmentsResponse{complete(3), change(3, 4), change(4, 9)}, false},
		{"complete again", []*api.AssignmentsResponse{complete(3), change(3, 4), complete(1), change(1, 2)}, false},
		{"one lost", []*api.AssignmentsResponse{complete(3), change(4, 5)}, true},
		{"repeated", []*api.AssignmentsResponse{complete(3), change(3, 4), change(3, 4)}, true},
		{"begins with a change", []*api.AssignmentsResponse{change(0, 1)}, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var s sequence
			var err error
			for _, m := range test.messages {
				_, _, failed := s.accept(m)
				err = errors.Join(err, failed)
			}
			if got := errors.Is(err, errGap); got != test.gap {
				t.Errorf("gap %v, want %v", got, test.gap)
			}
		})
	}
}

func TestSequence_PutsPartsTogether(t *testing.T) {
	part := func(complete bool, to, in uint64, more bool, ids ...string) *api.AssignmentsResponse {
		m := &api.AssignmentsResponse{Complete: complete, AppliesTo: to, ResultsIn: in, More: more}
		for _, id := range ids {
			m.Changes = append(m.Changes, &api.AssignmentChange{Object: &api.AssignmentChange_Task{Task: &api.Task{Id: id}}})
		}
		return m
	}
	large := part(true, 0, 1, true, strings.Repeat("a", 64<<20))
	tests := []struct {
		name     string
		messages []*api.AssignmentsResponse
		want     []string // the ids of each message that was whole
		err      error
	}{
		{"parts", []*api.AssignmentsResponse{part(true, 0, 1, true, "a", "b"), part(true, 0, 1, false, "c"), part(false, 1, 2, true, "d"), part(false, 1, 2, false)}, []string{"abc", "d"}, nil},
		{"the end is lost", []*api.AssignmentsResponse{part(true, 0, 1, true, "a"), part(false, 1, 2, false, "b")}, nil, errGap},
		{"another complete message instead of the end", []*api.AssignmentsResponse{part(true, 0, 1, true, "a"), part(true, 0, 2, false, "b")}, nil, errGap},
		{"too much", slices.Repeat([]*api.AssignmentsResponse{large}, maxAssignments>>26), nil, errLarge},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var s sequence
			var got []string
			var err error
			for _, m := range test.messages {
				changes, whole, failed := s.accept(m)
				err = errors.Join(err, failed)
				if whole {
					ids := ""
					for _, c := range changes {
						ids += c.GetTask().GetId()
					}
					got = append(got, ids)
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" || !errors.Is(err, test.err) {
				t.Errorf("(-want +got): %.500s, %v, want %v", diff, err, test.err)
			}
		})
	}
}

func TestSequence_ForgetsSecretsOfWhichTheRestNeverComes(t *testing.T) {
	secret := []byte("canary")
	var s sequence
	_, _, err := s.accept(&api.AssignmentsResponse{Complete: true, ResultsIn: 1, More: true, Changes: []*api.AssignmentChange{
		{Object: &api.AssignmentChange_Secret{Secret: &api.Secret{Id: "s", Spec: &api.SecretSpec{Data: secret}}}},
		{Object: &api.AssignmentChange_Task{Task: &api.Task{Id: "t"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.forget()
	if string(secret) != "\x00\x00\x00\x00\x00\x00" || len(s.parts) > 0 {
		t.Errorf("%q and %d parts are left", secret, len(s.parts))
	}
}

func TestManagers_SurviveARestart(t *testing.T) {
	dir := t.TempDir()
	if got, err := loadManagers(dir); got != nil || err != nil {
		t.Errorf("without a file: %v, %v", got, err)
	}
	want := []string{"10.0.0.1:2377", "[fd00::1]:2377"}
	if err := saveManagers(dir, want); err != nil {
		t.Fatal(err)
	}
	got, err := loadManagers(dir)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("(-want +got): %s, %v", diff, err)
	}
	for name, text := range map[string]string{"torn": `{"version":1,`, "version": `{"version":2}`, "big": strings.Repeat(" ", maxSaved+1)} {
		if err := os.WriteFile(filepath.Join(dir, savedFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := loadManagers(dir); err == nil {
			t.Errorf("%s: got %v, want an error", name, got)
		}
	}
}

func FuzzParseManagers(f *testing.F) {
	f.Add([]byte(`{"version":1,"managers":["10.0.0.1:2377","[fd00::1]:2377","x"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := parseManagers(data)
		if err != nil {
			return
		}
		if len(got) > maxManagers {
			t.Errorf("%d managers", len(got))
		}
		if diff := cmp.Diff(got, cleanAddresses(got)); diff != "" {
			t.Errorf("not clean: %s", diff)
		}
	})
}
