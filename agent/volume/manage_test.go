package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/lsm"
)

func names(t *testing.T, s *Store) []string {
	t.Helper()
	names, err := s.Names()
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestCreate_KeepsLabelsAndWhatIsThere(t *testing.T) {
	s, dir := newStore(t)
	labels := map[string]string{"tier": "db"}
	made, err := s.Create(t.Context(), "db", labels)
	if err != nil || made.Dir != filepath.Join(dir, "db", "data") || time.Since(made.CreatedAt) < 0 {
		t.Fatalf("%+v, %v", made, err)
	}
	if err := os.WriteFile(filepath.Join(made.Dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	again, err := s.Create(t.Context(), "db", map[string]string{"other": "label"})
	if diff := cmp.Diff(made, again); diff != "" || err != nil {
		t.Errorf("made again: %v, %s", err, diff)
	}
	if _, err := os.Stat(filepath.Join(made.Dir, "file")); err != nil {
		t.Error(err)
	}
	if _, err := s.Provide(t.Context(), "auto", lsm.Labels{}, write("file")); err != nil {
		t.Fatal(err)
	}
	auto, err := s.Get("auto")
	if err != nil || auto.Labels != nil || auto.CreatedAt.IsZero() {
		t.Errorf("made by a task: %+v, %v", auto, err)
	}
	if _, err := s.Create(t.Context(), "auto", labels); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"auto", "db"}, names(t, s)); diff != "" {
		t.Error(diff)
	}
	for _, name := range []string{"", "x", "../up", ".removed-x", "a/b"} {
		if _, err := s.Create(t.Context(), name, nil); fault.KindOf(err) != fault.Invalid {
			t.Errorf("made %q: %v", name, err)
		}
	}
}

// A volume that was made by name is filled by the first task, as one that was made by a task.
func TestCreate_IsFilledByTheFirstTask(t *testing.T) {
	s, _ := newStore(t)
	if _, err := s.Create(t.Context(), "db", nil); err != nil {
		t.Fatal(err)
	}
	dir, err := s.Provide(t.Context(), "db", lsm.Labels{}, write("first"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "first")); err != nil {
		t.Error(err)
	}
}

// What is too large to be read is not taken for an empty record.
func TestGet_RefusesARecordThatIsTooLarge(t *testing.T) {
	s, dir := newStore(t)
	if _, err := s.Create(t.Context(), "db", nil); err != nil {
		t.Fatal(err)
	}
	text := `{"CreatedAt":"2026-01-02T03:04:05Z","Labels":{"a":"` + strings.Repeat("b", maxRecord) + `"}}`
	if err := os.WriteFile(filepath.Join(dir, "db", recordFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	v, err := s.Get("db")
	if err == nil || !strings.Contains(err.Error(), "what is known of volume db") || v.CreatedAt.IsZero() {
		t.Errorf("%+v, %v", v.CreatedAt, err)
	}
	if err := s.Remove(t.Context(), "db", func() error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestRemove_TakesAllOrNothing(t *testing.T) {
	s, dir := newStore(t)
	if _, err := s.Provide(t.Context(), "db", lsm.Labels{}, write("file")); err != nil {
		t.Fatal(err)
	}
	busy := errors.New("busy")
	if err := s.Remove(t.Context(), "db", func() error { return busy }); !errors.Is(err, busy) {
		t.Errorf("in use: %v", err)
	}
	if diff := cmp.Diff([]string{"db"}, names(t, s)); diff != "" {
		t.Error(diff)
	}
	free := func() error { return nil }
	if err := s.Remove(t.Context(), "db", free); err != nil {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), "db", free); fault.KindOf(err) != fault.NotFound {
		t.Errorf("removed twice: %v", err)
	}
	if err := s.Remove(t.Context(), "..", free); fault.KindOf(err) != fault.Invalid {
		t.Errorf("removed what is no volume: %v", err)
	}
	left := filepath.Join(dir, ".removed-before", "data")
	if err := os.MkdirAll(left, 0o700); err != nil { // the daemon ended while it was removed
		t.Fatal(err)
	}
	if len(names(t, s)) != 0 {
		t.Errorf("%v are listed", names(t, s))
	}
	if err := s.Clean(); err != nil {
		t.Error(err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

func TestRemove_WaitsForWhoMakesTheVolumeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newStore(t)
		filling, done := make(chan struct{}), make(chan error, 1)
		go func() {
			_, err := s.Provide(t.Context(), "db", lsm.Labels{}, func(context.Context, *os.Root) error { <-filling; return nil })
			done <- err
		}()
		synctest.Wait()
		removed := make(chan error, 1)
		go func() { removed <- s.Remove(t.Context(), "db", func() error { return nil }) }()
		synctest.Wait()
		select {
		case err := <-removed:
			t.Errorf("removed while it was filled: %v", err)
		default:
		}
		close(filling)
		if err := errors.Join(<-done, <-removed); err != nil {
			t.Error(err)
		}
	})
}

func TestServer_KnowsWhoUsesVolumes(t *testing.T) {
	s, _ := newStore(t)
	uses := func(volume string) *api.Task { return &api.Task{ServiceName: volume} }
	statuses := map[string]*api.TaskStatus{
		"runs": {State: api.TaskState_TASK_STATE_RUNNING}, "ended": {State: api.TaskState_TASK_STATE_FAILED},
	}
	server := Server{
		Store: s, Answer: func(_ string, err error) error { return err },
		Tasks: func() map[string]*api.Task {
			return map[string]*api.Task{"runs": uses("db"), "ended": uses("old"), "new": uses("soon")}
		},
		Statuses: func() map[string]*api.TaskStatus { return statuses },
		Mounted:  func(t *api.Task) []string { return []string{t.GetServiceName(), t.GetServiceName()} },
	}
	for _, name := range []string{"db", "old", "soon"} {
		if _, err := server.CreateNodeVolume(t.Context(), &api.CreateNodeVolumeRequest{Name: name, Labels: map[string]string{"a": "b"}}); err != nil {
			t.Fatal(err)
		}
	}
	answer, err := server.ListNodeVolumes(t.Context(), &api.ListNodeVolumesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, v := range answer.GetVolumes() {
		got[v.GetName()] = v.GetTaskIds()
	}
	if diff := cmp.Diff(map[string][]string{"db": {"runs"}, "old": {}, "soon": {"new"}}, got, cmp.Transformer("empty", func(s []string) int { return len(s) })); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]fault.Kind{"db": fault.Precondition, "soon": fault.Precondition, "other": fault.NotFound} {
		if _, err := server.RemoveNodeVolume(t.Context(), &api.RemoveNodeVolumeRequest{Name: name}); fault.KindOf(err) != want {
			t.Errorf("remove %s: %v", name, err)
		}
	}
	if _, err := server.RemoveNodeVolume(t.Context(), &api.RemoveNodeVolumeRequest{Name: "old"}); err != nil {
		t.Error(err)
	}
	one, err := server.ListNodeVolumes(t.Context(), &api.ListNodeVolumesRequest{Name: "old"})
	if err != nil || len(one.GetVolumes()) != 0 {
		t.Errorf("%v, %v", one, err)
	}
}
