package volume

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/runtime/lsm"
)

func newStore(t *testing.T) (*Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "volumes")
	s, err := New(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s, dir
}

// write returns a function that fills a volume with one file.
func write(name string) func(context.Context, *os.Root) error {
	return func(_ context.Context, r *os.Root) error { return r.WriteFile(name, []byte(name), 0o644) }
}

func TestProvide_FillsAnEmptyVolumeAndNoOther(t *testing.T) {
	s, dir := newStore(t)
	if _, err := s.Provide(t.Context(), "db", lsm.Labels{}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := s.Provide(t.Context(), "db", lsm.Labels{}, write("first"))
	if err != nil || got != filepath.Join(dir, "db", "data") {
		t.Fatalf("got %s, %v", got, err)
	}
	if _, err := s.Provide(t.Context(), "db", lsm.Labels{}, write("second")); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(got)
	if err != nil || len(entries) != 1 || entries[0].Name() != "first" {
		t.Errorf("the volume has %v, %v", entries, err)
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("others come into the directory of volumes: %v, %v", info.Mode(), err)
	}
}

// A volume is there once it has its label, and not before: no container could use it.
func TestProvide_GivesAVolumeItsLabelFirst(t *testing.T) {
	s, dir := newStore(t)
	if _, err := s.Provide(t.Context(), "db", lsm.Labels{Mount: "no label"}, nil); err == nil {
		t.Error("made with a label that is none")
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "db")); err != nil || len(entries) != 1 || entries[0].Name() != freshDir || len(names(t, s)) != 0 {
		t.Errorf("without a label: %v, %v, and %v are volumes", entries, err, names(t, s))
	}
	if _, err := s.Provide(t.Context(), "db", lsm.Labels{}, nil); err != nil { // after what was cut short
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "db")); err != nil || len(entries) != 1 || entries[0].Name() != dataDir || len(names(t, s)) != 1 {
		t.Errorf("made: %v, %v, and %v are volumes", entries, err, names(t, s))
	}
}

func TestProvide_FillsAgainWhatWasCutShort(t *testing.T) {
	s, dir := newStore(t)
	broken := errors.New("disk full")
	_, err := s.Provide(t.Context(), "db", lsm.Labels{}, func(ctx context.Context, r *os.Root) error {
		return errors.Join(write("half")(ctx, r), broken)
	})
	if !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	again, err := New(dir, nil) // a daemon that is started anew
	if err != nil {
		t.Fatal(err)
	}
	got, err := again.Provide(t.Context(), "db", lsm.Labels{}, write("whole"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(got, "whole")); err != nil {
		t.Error(err)
	}
}

func TestProvide_RefusesWhatIsNoName(t *testing.T) {
	s, _ := newStore(t)
	for _, name := range []string{"", "a", "..", "../x", "a/b", ".hidden", "a\x00b", string(make([]byte, 200))} {
		if _, err := s.Provide(t.Context(), name, lsm.Labels{}, nil); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestProvide_WaitsForWhoFills keeps V2.
func TestProvide_WaitsForWhoFills(t *testing.T) {
	s, _ := newStore(t)
	synctest.Test(t, func(t *testing.T) {
		filling := make(chan struct{})
		go func() {
			if _, err := s.Provide(t.Context(), "db", lsm.Labels{}, func(ctx context.Context, r *os.Root) error {
				<-filling
				return write("x")(ctx, r)
			}); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Provide(soon, "db", lsm.Labels{}, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a volume was given away while it was filled: %v", err)
		}
		if _, err := s.Provide(t.Context(), "other", lsm.Labels{}, nil); err != nil {
			t.Errorf("another volume had to wait: %v", err)
		}
		close(filling)
		if _, err := s.Provide(t.Context(), "db", lsm.Labels{}, nil); err != nil {
			t.Error(err)
		}
	})
}
