package logfile

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// newWatcher runs a Watcher for as long as the test.
func newWatcher(t *testing.T) *Watcher {
	t.Helper()
	w, err := NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, w.Close()); err != nil {
			t.Error(err)
		}
	})
	return w
}

// seqs reads the numbers of all entries to the end.
func seqs(t *testing.T, path string, o Options) (out []uint64) {
	t.Helper()
	r := newReader(t, path, o)
	for {
		e, err := r.Next(t.Context())
		if err != nil {
			return out
		}
		out = append(out, e.Seq)
	}
}

func count(from, to uint64) (out []uint64) {
	for i := from; i <= to; i++ {
		out = append(out, i)
	}
	return out
}

func TestWriter_NumbersGoOn(t *testing.T) { // I5
	path := t.TempDir() + "/log"
	cfg := Config{Path: path, MaxSize: minSize, MaxFiles: 3}
	w := newWriter(t, cfg)
	fill(w, 0, 300) // one rotation
	w.Close()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"log":"a line that was not written to its end`); err != nil {
		t.Fatal(err)
	}
	f.WriteString("\n")
	f.Close()
	w = newWriter(t, cfg)
	fill(w, 300, 310)
	if diff := cmp.Diff(count(1, 310), seqs(t, path, Options{})); diff != "" {
		t.Errorf("after a restart: want (-), got (+):\n%s", diff)
	}
	w.Close()
	if err := os.Rename(path, path+".moved"); err != nil { // a rotation that ended half way, and nothing since
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(path+".1"), os.Rename(path+".moved", path+".1")); err != nil {
		t.Fatal(err)
	}
	w = newWriter(t, cfg)
	fill(w, 310, 311)
	got := seqs(t, path, Options{After: 309})
	if diff := cmp.Diff([]uint64{310, 311}, got); diff != "" {
		t.Errorf("after a rotation: want (-), got (+):\n%s", diff)
	}
}

func TestWriter_WhatIsLostHasNoNumber(t *testing.T) { // I2, I5
	path := t.TempDir() + "/log"
	w := newWriter(t, Config{Path: path})
	fill(w, 0, 1)
	good := w.file
	w.file, _ = os.Open(os.DevNull) // which nobody can write to, being open to read
	fill(w, 1, 3)
	w.file.Close()
	w.file = good
	fill(w, 3, 4)
	if diff := cmp.Diff(count(1, 3), seqs(t, path, Options{})); diff != "" { // the second says that two are lost
		t.Errorf("want (-), got (+):\n%s", diff)
	}
}

func TestReader_After(t *testing.T) {
	path := t.TempDir() + "/log"
	w := newWriter(t, Config{Path: path, MaxSize: minSize, MaxFiles: 3})
	fill(w, 0, 1000)
	first := seqs(t, path, Options{})[0]
	if first < 100 {
		t.Fatalf("the oldest entry is %d: there was no rotation", first)
	}
	for _, after := range []uint64{first, first + 150, first + 151, 700, 999} {
		if diff := cmp.Diff(count(after+1, 1000), seqs(t, path, Options{After: after})); diff != "" {
			t.Errorf("after %d: want (-), got (+):\n%s", after, diff)
		}
	}
	if got := seqs(t, path, Options{After: 5}); got[0] != first {
		t.Errorf("after an entry that is gone: begins with %d, want the oldest, %d", got[0], first)
	}
	if got := seqs(t, path, Options{After: 1000}); len(got) != 0 {
		t.Errorf("after the last: %v", got)
	}
}

// Two readers of one log and one of another follow by one inotify instance.
func TestWatcher_WakesWhoWaits(t *testing.T) { // I4
	one, two := t.TempDir()+"/log", t.TempDir()+"/log"
	watcher := newWatcher(t)
	writers := map[string]*Writer{one: newWriter(t, Config{Path: one, MaxSize: minSize}), two: newWriter(t, Config{Path: two})}
	var readers []*Reader
	for _, path := range []string{one, one, two} {
		readers = append(readers, newReader(t, path, Options{Follow: true, Watcher: watcher}))
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range uint64(500) { // with rotations
		fill(writers[one], int(i), int(i)+1)
		fill(writers[two], int(i), int(i)+1)
		for n, r := range readers {
			if e, err := r.Next(ctx); err != nil || e.Seq != i+1 {
				t.Fatalf("reader %d: entry %d, %v, want %d", n, e.Seq, err, i+1)
			}
		}
	}
	if err := readers[0].Close(); err != nil {
		t.Fatal(err)
	}
	fill(writers[one], 0, 1)
	if e, err := readers[1].Next(ctx); err != nil || e.Seq != 501 {
		t.Errorf("after the other reader of the log ended: entry %d, %v", e.Seq, err)
	}
	if err := os.RemoveAll(two[:len(two)-len("/log")]); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(readers[1].Close(), readers[2].Close()); err != nil {
		t.Errorf("end of readers, of a log that is gone too: %v", err)
	}
	watcher.mu.Lock()
	defer watcher.mu.Unlock()
	if left := len(watcher.readers); left != 0 {
		t.Errorf("%d directories are still watched", left)
	}
}
