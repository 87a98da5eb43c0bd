package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/internal/logselect"
	"github.com/skep-io/skep/runtime/logfile"
	"github.com/skep-io/skep/runtime/logfile/logfiletest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Unix(1_700_000_000, 0)

// node has the logs of tasks, and says which are prepared and which have ended. Those that it doesn't know are both.
type node struct {
	t               *testing.T
	dir             string
	prepared, ended map[string]chan struct{}
}

func newNode(t *testing.T, ids ...string) *node {
	n := &node{t: t, dir: t.TempDir(), prepared: map[string]chan struct{}{}, ended: map[string]chan struct{}{}}
	for _, id := range ids {
		n.ended[id] = make(chan struct{})
		if err := os.Mkdir(filepath.Join(n.dir, id), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

func (n *node) path(id string) (string, error) { return filepath.Join(n.dir, id, "log.json"), nil }

func (n *node) reader() Reader {
	mark := func(marks map[string]chan struct{}) func(string) <-chan struct{} {
		return func(id string) <-chan struct{} {
			if c, ok := marks[id]; ok {
				return c
			}
			c := make(chan struct{})
			close(c)
			return c
		}
	}
	return Reader{Path: n.path, Prepared: mark(n.prepared), Ended: mark(n.ended), Watcher: logfiletest.NewWatcher(n.t)}
}

// write writes lines "FROM" to "TO-1", one per second, every other one to stderr.
func (n *node) write(id string, from, to int) {
	n.t.Helper()
	path, _ := n.path(id)
	w, err := logfile.New(logfile.Config{Path: path, MaxSize: 1 << 20, MaxFiles: 2})
	if err != nil {
		n.t.Fatal(err)
	}
	for i := from; i < to; i++ {
		stream := logfile.Stdout
		if i%2 == 1 {
			stream = logfile.Stderr
		}
		w.Write(logfile.Entry{Time: epoch.Add(time.Duration(i) * time.Second), Stream: stream, Text: fmt.Appendf(nil, "%d\n", i)})
	}
	if err := w.Close(); err != nil {
		n.t.Fatal(err)
	}
}

// read returns all lines as "task:stream:text".
func (n *node) read(o *api.LogOptions, ids ...string) ([]string, error) {
	var out []string
	err := n.reader().Read(n.t.Context(), ids, o, func(l *api.LogLine) error {
		if l == nil {
			return nil
		}
		stream := strings.TrimPrefix(l.GetStream().String(), "LOG_STREAM_STD")
		out = append(out, fmt.Sprintf("%s:%s:%s", l.GetTaskId(), stream, strings.TrimSpace(string(l.GetData()))))
		return nil
	})
	return out, err
}

func TestRead_SelectsLines(t *testing.T) {
	tests := []struct {
		name string
		o    *api.LogOptions
		want []string
	}{
		{"all", &api.LogOptions{Tail: -1}, []string{"a:OUT:0", "a:ERR:1", "a:OUT:2"}},
		{"none", &api.LogOptions{Tail: 0}, nil},
		{"the last", &api.LogOptions{Tail: 2}, []string{"a:ERR:1", "a:OUT:2"}},
		{"since", &api.LogOptions{Tail: -1, Since: timestamppb.New(epoch.Add(2 * time.Second))}, []string{"a:OUT:2"}},
		{"until", &api.LogOptions{Tail: -1, Until: timestamppb.New(epoch.Add(time.Second))}, []string{"a:OUT:0", "a:ERR:1"}},
		{"the last until", &api.LogOptions{Tail: 1, Until: timestamppb.New(epoch.Add(time.Second))}, []string{"a:ERR:1"}},
		{"grep", &api.LogOptions{Tail: -1, Grep: "^[02]$"}, []string{"a:OUT:0", "a:OUT:2"}},
		{"the last that match", &api.LogOptions{Tail: 1, Grep: "^[01]$"}, []string{"a:ERR:1"}},
		{"more than match", &api.LogOptions{Tail: 5, Grep: "^[01]$"}, []string{"a:OUT:0", "a:ERR:1"}},
		{"none that match", &api.LogOptions{Tail: 0, Grep: "0"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := newNode(t, "a")
			n.write("a", 0, 3)
			got, err := n.read(test.o, "a")
			if diff := cmp.Diff(test.want, got); diff != "" || err != nil {
				t.Errorf("%s, %v", diff, err)
			}
		})
	}
}

func TestRead_FollowsUntilTheTasksEnd(t *testing.T) {
	n := newNode(t, "a", "b")
	n.write("a", 0, 2)
	var got []string
	err := n.reader().Read(t.Context(), []string{"a", "b", "elsewhere"}, &api.LogOptions{Follow: true, Tail: -1}, func(l *api.LogLine) error {
		got = append(got, l.GetTaskId()+strings.TrimSpace(string(l.GetData())))
		switch {
		case len(got) == 2:
			n.write("b", 7, 8)
			n.write("a", 2, 4)
		case len(got) == 5:
			close(n.ended["a"])
			close(n.ended["b"])
		}
		return nil
	})
	slices.Sort(got)
	if diff := cmp.Diff([]string{"a0", "a1", "a2", "a3", "b7"}, got); diff != "" || err != nil {
		t.Errorf("%s, %v", diff, err)
	}
}

// TestRead_SaysHowManyLinesAreMissing: of those that are damaged, before the next that is wanted, or in the end.
func TestRead_SaysHowManyLinesAreMissing(t *testing.T) {
	n := newNode(t, "a")
	n.write("a", 0, 6)
	path, _ := n.path("a")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text = bytes.Replace(text, []byte(`{"log":"2`), []byte(`{"log":2`), 1)
	text = bytes.Replace(text, []byte(`{"log":"4`), []byte(`{"log":4`), 1)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	for grep, want := range map[string][]string{"": {"0-0", "1-0", "3-1", "5-1"}, "[05]": {"0-0", "5-2"}, "[03]": {"0-0", "3-1", "-1"}, "none": {"-2"}} {
		var got []string
		err := n.reader().Read(t.Context(), []string{"a"}, &api.LogOptions{Tail: -1, Grep: grep}, func(l *api.LogLine) error {
			got = append(got, fmt.Sprintf("%s-%d", strings.TrimSpace(string(l.GetData())), l.GetMissed()))
			return nil
		})
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("grep %q: %s, %v", grep, diff, err)
		}
	}
}

func TestRead_WaitsForATaskThatIsBeingPrepared(t *testing.T) {
	n := newNode(t, "a")
	n.write("a", 0, 1)
	n.prepared["later"], n.prepared["never"] = make(chan struct{}), make(chan struct{})
	var got []string
	err := n.reader().Read(t.Context(), []string{"a", "later", "never"}, &api.LogOptions{Follow: true, Tail: -1}, func(l *api.LogLine) error {
		got = append(got, l.GetTaskId())
		if l.GetTaskId() == "a" {
			if err := os.Mkdir(filepath.Join(n.dir, "later"), 0o700); err != nil {
				return err
			}
			n.write("later", 1, 2)
			close(n.prepared["later"])
			close(n.prepared["never"])
			close(n.ended["a"])
		}
		return nil
	})
	if diff := cmp.Diff([]string{"a", "later"}, got); diff != "" || err != nil {
		t.Errorf("%s, %v", diff, err)
	}
}

func TestRead_EndsWithItsContextOrItsReceiver(t *testing.T) {
	n := newNode(t, "a", "b")
	n.write("a", 0, 1)
	ctx, cancel := context.WithCancel(t.Context())
	err := n.reader().Read(ctx, []string{"a", "b"}, &api.LogOptions{Follow: true, Tail: -1}, func(*api.LogLine) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	gone := errors.New("receiver gone")
	err = n.reader().Read(t.Context(), []string{"a", "b"}, &api.LogOptions{Follow: true, Tail: -1}, func(*api.LogLine) error { return gone })
	if !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

func TestRead_RefusesUnknownAndTooMany(t *testing.T) {
	n := newNode(t)
	if _, err := n.read(&api.LogOptions{}, "none"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("unknown: %v", err)
	}
	for _, grep := range []string{"(", strings.Repeat("x", logselect.MaxGrep+1)} {
		if _, err := n.read(&api.LogOptions{Grep: grep}, "none"); fault.KindOf(err) != fault.Invalid {
			t.Errorf("grep %.9q: %v", grep, err)
		}
	}
	if _, err := n.read(&api.LogOptions{}, make([]string, MaxTasks+1)...); fault.KindOf(err) != fault.Invalid {
		t.Errorf("too many: %v", err)
	}
}
