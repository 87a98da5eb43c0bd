package image

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
)

var errCrash = errors.New("crash")

// crasher fails the step number at and every later one: what happens after a
// crash does not happen, clean-up included.
func crasher(at int) (step func(string) error, reached func() (int, string)) {
	n, last := 0, ""
	step = func(name string) error {
		if n++; n > at {
			return errCrash
		}
		last = name
		return nil
	}
	return step, func() (int, string) { return n, last }
}

// TestCrashAtEveryStep runs a script, with a crash before each step that changes
// the disk in turn, opens the store again as a restarted daemon would, and checks
// I1 to I4. Then it runs the script once more, which must succeed.
func TestCrashAtEveryStep(t *testing.T) {
	first, second := build(t, layerOf(t, "a=1")), build(t, layerOf(t, "a=2"))
	archives := [][]byte{first.tar(t, "app"), second.tar(t, "app")}
	load := func(s *Store, n int) error {
		_, err := s.Load(t.Context(), bytes.NewReader(archives[n]))
		return err
	}
	script := func(s *Store) error {
		if err := load(s, 0); err != nil {
			return err
		}
		if err := unpackOnce(t, s, first.manifest); err != nil {
			return err
		}
		if err := load(s, 1); err != nil { // takes the name of the first
			return err
		}
		if _, err := s.Prune(t.Context()); err != nil { // which goes, with its layer
			return err
		}
		if err := s.Fetch(t.Context(), first.manifest, []string{"fetched"}, first); err != nil {
			return err
		}
		return s.Remove(t.Context(), "app")
	}
	crashes := 0
	for at := 0; ; at++ {
		if done := crashOnce(t, at, script); done {
			break
		}
		crashes++
	}
	if crashes < 40 {
		t.Errorf("only %d steps: they do not cover the script", crashes)
	}
	t.Logf("%d crash points", crashes)
}

// unpackOnce unpacks an image where that is possible.
func unpackOnce(t *testing.T, s *Store, d digest.Digest) error {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	_, release, err := s.Rootfs(t.Context(), d)
	if err == nil {
		release()
	}
	return err
}

// crashOnce runs the script with a crash after at steps. It returns true when
// the script needed no more than that.
func crashOnce(t *testing.T, at int, script func(*Store) error) (done bool) {
	t.Helper()
	root := scratch(t)
	step, reached := crasher(at)
	s, err := Open(root, withStep(step))
	if err == nil {
		err = script(s)
		if closeErr := s.Close(); closeErr != nil && !errors.Is(closeErr, errCrash) {
			t.Fatal(closeErr)
		}
	}
	if err != nil && !errors.Is(err, errCrash) {
		t.Fatalf("after step %d: %v", at, err)
	}
	n, last := reached()
	t.Run(fmt.Sprintf("%d after %s", at, last), func(t *testing.T) {
		s := open(t, root)
		check(t, s)
		if err := script(s); err != nil {
			t.Errorf("once more: %v", err)
		}
		check(t, s)
		if left, _ := filepath.Glob(filepath.Join(root, "ingest/*")); len(left) != 0 {
			t.Errorf("ingest/ holds %v", left)
		}
	})
	return err == nil && n <= at
}

// TestLoad_MakesContentDurableBeforeItRefersToIt checks the order that a power
// failure needs, which a crash of the program alone would not show: bytes, then
// their name, then the directory, and the database last.
func TestLoad_MakesContentDurableBeforeItRefersToIt(t *testing.T) {
	var steps []string
	s := open(t, scratch(t), withStep(func(step string) error {
		steps = append(steps, step)
		return nil
	}))
	steps = nil
	b := build(t, layerOf(t, "a=b"))
	load(t, s, b.tar(t, "app"))
	want := []string{}
	for range b.blobs {
		want = append(want, "create ingest", "write ingest", "sync ingest", "rename ingest", "sync blob directory")
	}
	if diff := cmp.Diff(append(want, "commit"), steps); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	steps = nil
	if err := s.Remove(t.Context(), "app"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"commit", "remove blob", "remove blob", "remove blob"}, steps); diff != "" {
		t.Errorf("steps of Remove (-want +got):\n%s", diff)
	}
}
