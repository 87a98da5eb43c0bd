package supervisor

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/runtime/protocol"
)

// TestMachine_Scripts runs inputs through a machine and compares what it announces.
func TestMachine_Scripts(t *testing.T) {
	for _, tc := range []struct {
		name   string
		inputs []input
		want   []string // events; "error" for a refused input
	}{
		{
			"life",
			[]input{startAsked{}, executed{}, exited{code: 3}},
			[]string{"running", "exited 3 durable"},
		},
		{
			"exit before the word that it runs",
			[]input{startAsked{}, exited{code: 3}, executed{}},
			[]string{"running", "exited 3 durable"},
		},
		{
			"program can't run",
			[]input{startAsked{}, executeFailed{code: 127, text: "exec x"}, exited{code: 126}},
			[]string{"exited 127 durable: exec x"},
		},
		{
			"program can't run, exit first",
			[]input{startAsked{}, exited{code: 126}, executeFailed{code: 127, text: "exec x"}},
			[]string{"exited 127 durable: exec x"},
		},
		{
			"killed before start",
			[]input{exited{code: 137, signal: 9}, startAsked{}},
			[]string{"exited 137 durable: ended before it was started", "error"},
		},
		{
			"two starts",
			[]input{startAsked{}, startAsked{}, executed{}, startAsked{}},
			[]string{"error", "running", "error"},
		},
		{
			"OOM kill is told once",
			[]input{startAsked{}, executed{}, oomKilled{}, oomKilled{}, exited{code: 137, oom: true}, oomKilled{}},
			[]string{"running", "oom OOM", "exited 137 OOM durable"},
		},
		{
			"OOM kill known at the end only",
			[]input{startAsked{}, executed{}, exited{code: 137, oom: true}},
			[]string{"running", "exited 137 OOM durable"},
		},
		{
			"two exits",
			[]input{startAsked{}, executed{}, exited{}, exited{}},
			[]string{"running", "exited durable", "error"},
		},
		{"word without a question", []input{executed{}, executeFailed{}}, []string{"error", "error"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := created(time.Unix(1, 0), "c", 42)
			var got []string
			for i, in := range tc.inputs {
				effects, err := m.step(time.Unix(int64(i+2), 0), in)
				if err != nil {
					got = append(got, "error")
				}
				for _, e := range effects {
					got = append(got, describe(e))
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("effects (-want +got):\n%s", diff)
			}
		})
	}
}

func describe(e effect) string {
	s := string(e.event.Type)
	if e.event.State.ExitCode != 0 {
		s += fmt.Sprint(" ", e.event.State.ExitCode)
	}
	if e.event.State.OOMKilled {
		s += " OOM"
	}
	if e.durable {
		s += " durable"
	}
	if e.event.State.Error != "" {
		s += ": " + e.event.State.Error
	}
	return s
}

// TestMachine_EveryOrderKeepsTheInvariants tries every sequence of inputs up to a length: statuses only go forward,
// and there is at most one running and one exited event (I2).
func TestMachine_EveryOrderKeepsTheInvariants(t *testing.T) {
	inputs := []input{startAsked{}, executed{}, executeFailed{code: 127}, oomKilled{}, exited{code: 1}}
	rank := map[protocol.Status]int{protocol.Created: 0, protocol.Running: 1, protocol.Exited: 2}
	var try func(m machine, depth int, seen map[protocol.EventType]int)
	try = func(m machine, depth int, seen map[protocol.EventType]int) {
		if depth == 0 {
			return
		}
		for _, in := range inputs {
			next, before := m, m.state.Status
			counts := make(map[protocol.EventType]int, len(seen))
			maps.Copy(counts, seen)
			effects, err := next.step(time.Unix(2, 0), in)
			if err != nil && next.state.Status != before {
				t.Fatalf("refused %T changed %s to %s", in, before, next.state.Status)
			}
			for _, e := range effects {
				if rank[e.event.State.Status] < rank[before] {
					t.Fatalf("%T went back from %s to %s", in, before, e.event.State.Status)
				}
				before = e.event.State.Status
				if counts[e.event.Type]++; counts[e.event.Type] > 1 {
					t.Fatalf("%s told twice", e.event.Type)
				}
				if e.durable != (e.event.Type == protocol.EventExited) { // I1
					t.Fatalf("%s durable: %v", e.event.Type, e.durable)
				}
			}
			try(next, depth-1, counts)
		}
	}
	try(created(time.Unix(1, 0), "c", 1), 7, nil)
}

func TestRecord_RoundTrip(t *testing.T) {
	want := record{
		Version: recordVersion, Boot: "b", Started: 7, Log: protocol.LogConfig{Path: "/l", MaxSize: 1},
		State: protocol.State{ID: "c", Status: protocol.Exited, ExitCode: 255, Error: "e", FinishedAt: time.Unix(5, 6).UTC()},
	}
	text, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parse(text)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	// As supervisors before the journal kept it.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "state.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err = load(dir)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("from a file: %v, (-want +got):\n%s", err, diff)
	}
}

func TestRecord_RefusesWhatItDoesNotKnow(t *testing.T) {
	for _, text := range []string{"", "{", "[]", `{"Version":2}`, `{"Version":1,"Extra":1}`} {
		if _, err := parse([]byte(text)); !errors.Is(err, errRecord) {
			t.Errorf("%q: %v, want errRecord", text, err)
		}
	}
}

// FuzzRecord holds that no bytes panic the reader of the journal.
func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"Version":1,"State":{"ID":"c","Status":"running","Pid":3},"Boot":"b","Started":4}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parse(data)
		if err == nil && r.Version != recordVersion {
			t.Fatalf("%+v", r)
		}
	})
}
