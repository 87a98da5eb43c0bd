package logfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newWriter(t testing.TB, cfg Config) *Writer {
	t.Helper()
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func newReader(t testing.TB, path string, o Options) *Reader {
	t.Helper()
	r, err := NewReader(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// all reads to the end.
func all(t testing.TB, r *Reader) []string {
	t.Helper()
	var out []string
	for {
		e, err := r.Next(t.Context())
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e.Stream+":"+string(e.Text))
	}
}

func TestStream_WritesDockersFormat(t *testing.T) {
	path := t.TempDir() + "/log"
	w := newWriter(t, Config{Path: path})
	pump(t, w.Stream(Stdout), strings.NewReader("one <&>\ntwo \xff"))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for i, want := range []string{`{"log":"one <&>\n","stream":"stdout","time":"`, `{"log":"two \ufffd","stream":"stdout","time":"`} {
		if !strings.HasPrefix(lines[i], want) {
			t.Errorf("line %d is %q, want prefix %q", i, lines[i], want)
		}
	}
}

func TestStream_SplitsLongLines(t *testing.T) {
	path := t.TempDir() + "/log"
	w := newWriter(t, Config{Path: path})
	long := strings.Repeat("a", MaxText) + strings.Repeat("b", MaxText-1) + "\n" + strings.Repeat("c", MaxText) + "\n"
	pump(t, w.Stream(Stderr), iotestOneByte{strings.NewReader(long)})
	want := []string{
		"stderr:" + strings.Repeat("a", MaxText), "stderr:" + strings.Repeat("b", MaxText-1) + "\n",
		"stderr:" + strings.Repeat("c", MaxText), "stderr:\n",
	}
	if diff := cmp.Diff(want, all(t, newReader(t, path, Options{}))); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

// pump writes all that r gives.
func pump(t *testing.T, s *Stream, r io.Reader) {
	t.Helper()
	if _, err := io.Copy(s, r); err != nil {
		t.Fatal(err)
	}
	s.End()
}

// iotestOneByte reads in odd pieces.
type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(len(p), 1009)]) }

func fill(w *Writer, from, to int) {
	for i := from; i < to; i++ {
		w.Write(Entry{Time: time.Unix(int64(i), 0), Stream: Stdout, Text: fmt.Appendf(nil, "%d %s\n", i, strings.Repeat("x", 1000))})
	}
}

func numbers(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("stdout:%d %s\n", i, strings.Repeat("x", 1000)))
	}
	return out
}

func TestWriter_KeepsWithinItsBounds(t *testing.T) { // I1
	dir := t.TempDir()
	w := newWriter(t, Config{Path: dir + "/log", MaxSize: minSize, MaxFiles: 3})
	fill(w, 0, 2000)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
		if st, err := e.Info(); err != nil || st.Size() > minSize {
			t.Errorf("%s: %v, %v", e.Name(), st.Size(), err)
		}
	}
	if diff := cmp.Diff([]string{"log", "log.1", "log.2"}, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	got := all(t, newReader(t, dir+"/log", Options{}))
	if diff := cmp.Diff(numbers(2000-len(got), 2000), got); diff != "" || len(got) < 350 {
		t.Errorf("%d entries (-want +got):\n%s", len(got), diff)
	}
}

func TestWriter_OneFile(t *testing.T) {
	dir := t.TempDir()
	w := newWriter(t, Config{Path: dir + "/log", MaxSize: minSize, MaxFiles: 1})
	fill(w, 0, 500)
	if got := all(t, newReader(t, dir+"/log", Options{Tail: 1})); !cmp.Equal(got, numbers(499, 500)) {
		t.Errorf("last line %.40q", got)
	}
	if _, err := os.Stat(dir + "/log.1"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a second file: %v", err)
	}
}

func TestWriter_GoesOnWhenTheDiskRefuses(t *testing.T) { // I2
	path := t.TempDir() + "/log"
	w := newWriter(t, Config{Path: path})
	fill(w, 0, 1)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("needs /dev/full: %v", err)
	}
	good := w.file
	w.file = full
	fill(w, 1, 4)
	w.file = good
	full.Close()
	fill(w, 4, 5)
	want := append(numbers(0, 1), "stderr:skep: 3 log lines lost: write /dev/full: no space left on device\n")
	want = append(want, numbers(4, 5)...)
	if diff := cmp.Diff(want, all(t, newReader(t, path, Options{}))); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
	if w.Dropped() != 3 {
		t.Errorf("dropped %d, want 3", w.Dropped())
	}
}

func TestReader_TailAndSince(t *testing.T) {
	path := t.TempDir() + "/log"
	w := newWriter(t, Config{Path: path, MaxSize: minSize, MaxFiles: 10})
	fill(w, 0, 600)
	for _, tc := range []struct {
		name string
		o    Options
		want []string
	}{
		{"all", Options{}, numbers(0, 600)},
		{"none", Options{Tail: -1}, nil},
		{"one", Options{Tail: 1}, numbers(599, 600)},
		{"over a rotation", Options{Tail: 400}, numbers(200, 600)},
		{"more than there is", Options{Tail: 5000}, numbers(0, 600)},
		{"since", Options{Since: time.Unix(590, 0)}, numbers(590, 600)},
		{"since within tail", Options{Tail: 5, Since: time.Unix(590, 0)}, numbers(595, 600)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, all(t, newReader(t, path, tc.o))); diff != "" {
				t.Errorf("entries (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReader_FollowsOverRotations(t *testing.T) { // I3, I4
	path := t.TempDir() + "/log"
	done := make(chan struct{})
	r := newReader(t, path, Options{Follow: true, Watcher: newWatcher(t), Done: done}) // before there is a log
	w := newWriter(t, Config{Path: path, MaxSize: minSize, MaxFiles: 500})
	go func() {
		defer close(done)
		fill(w, 0, 3000)
	}()
	if diff := cmp.Diff(numbers(0, 3000), all(t, r)); diff != "" {
		t.Errorf("entries (-want +got):\n%.2000s", diff)
	}
}

// A reader that is slower than the writer says how many entries it could not give.
func TestReader_SaysHowManyItMissed(t *testing.T) { // I3
	path := t.TempDir() + "/log"
	w := newWriter(t, Config{Path: path, MaxSize: minSize, MaxFiles: 2})
	fill(w, 0, 1)
	r := newReader(t, path, Options{Follow: true, Watcher: newWatcher(t)})
	first, err := r.Next(t.Context())
	if err != nil || first.Missed != 0 {
		t.Fatalf("the first: %d missed, %v", first.Missed, err)
	}
	fill(w, 1, 3000)
	given, missed, last := uint64(0), uint64(0), first
	for last.Seq < 3000 {
		if last, err = r.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		given, missed = given+1, missed+last.Missed
	}
	if missed == 0 || given+missed != 2999 {
		t.Errorf("%d given and %d missed of 2999", given, missed)
	}
	for _, after := range []uint64{1, first.Seq + given, 2998} {
		e, err := newReader(t, path, Options{After: after}).Next(t.Context())
		if err != nil || e.Missed != e.Seq-after-1 {
			t.Errorf("after %d: entry %d says that %d were missed, %v", after, e.Seq, e.Missed, err)
		}
	}
}

// In the middle of a rotation one number is free, with older files behind it: they are read all the same.
func TestReader_SeesPastARotationUnderWay(t *testing.T) { // I3
	path := t.TempDir() + "/log"
	w := newWriter(t, Config{Path: path, MaxSize: minSize, MaxFiles: 500})
	fill(w, 0, 300)
	var last int
	for last = 1; ; last++ {
		if _, err := os.Stat(numbered(path, last+1)); err != nil {
			break
		}
	}
	for free := last + 1; free > 0; free-- {
		if err := os.Rename(numbered(path, free-1), numbered(path, free)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(numbers(0, 300), all(t, newReader(t, path, Options{}))); diff != "" {
			t.Fatalf("number %d is free (-want +got):\n%.500s", free-1, diff)
		}
	}
}

// A log of which one file can't be opened leaves none of the others open.
func TestReader_ErrorLeavesNoFileOpen(t *testing.T) {
	path := t.TempDir() + "/log"
	fill(newWriter(t, Config{Path: path}), 0, 1)
	if err := os.Symlink(path+".1", path+".1"); err != nil {
		t.Fatal(err)
	}
	open := func() (n int) {
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && to == path {
				n++
			}
		}
		return n
	}
	before := open() // the writer's
	if _, err := NewReader(path, Options{}); !errors.Is(err, unix.ELOOP) {
		t.Fatalf("a file that can't be opened: %v", err)
	}
	if got := open(); got != before {
		t.Errorf("%d files are open, want %d", got, before)
	}
}

func TestReader_FollowEndsWithItsContext(t *testing.T) {
	path := t.TempDir() + "/log"
	w := newWriter(t, Config{Path: path})
	fill(w, 0, 1)
	r := newReader(t, path, Options{Follow: true, Watcher: newWatcher(t)})
	if _, err := r.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := r.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Next: %v, want canceled", err)
	}
	fill(w, 1, 2)
	if e, err := r.Next(t.Context()); err != nil || !bytes.HasPrefix(e.Text, []byte("1 ")) {
		t.Errorf("after that: %.20q, %v", e.Text, err)
	}
}

func TestReader_LeavesOutDamage(t *testing.T) {
	path := t.TempDir() + "/log"
	text := "garbage\n" + `{"log":"a\n","stream":"stdout","time":"2026-01-02T03:04:05Z"}` + "\n" +
		strings.Repeat("z", 3*maxEncoded) + "\n" + `{"log":"b\n","stream":"stderr","time":"2026-01-02T03:04:05Z"}` + "\n" +
		`{"log":"unfinished`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newReader(t, path, Options{})
	if diff := cmp.Diff([]string{"stdout:a\n", "stderr:b\n"}, all(t, r)); diff != "" || r.Damaged() != 2 {
		t.Errorf("%d damaged, entries (-want +got):\n%s", r.Damaged(), diff)
	}
}

func TestConfig_Refuses(t *testing.T) {
	for _, c := range []Config{{MaxSize: 1}, {MaxSize: -1}, {MaxFiles: -1}, {MaxFiles: maxFiles + 1}} {
		if err := c.Validate(); !errors.Is(err, ErrConfig) {
			t.Errorf("%+v: %v, want ErrConfig", c, err)
		}
	}
}

// FuzzDecode holds that what decodes encodes to something that decodes to the same.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"log":"a\n","stream":"stdout","time":"2026-01-02T03:04:05.123456789Z"}`))
	f.Add([]byte(`{"log":"\ud800","stream":"stderr","time":"0001-01-01T00:00:00+23:59"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := Decode(data)
		if err != nil {
			return
		}
		var b bytes.Buffer
		if encode(&b, e) != nil || b.Len() > maxEncoded {
			return // a year beyond 9999 in UTC
		}
		again, err := Decode(b.Bytes())
		if err != nil || !again.Time.Equal(e.Time) || again.Stream != e.Stream || !bytes.Equal(again.Text, e.Text) {
			t.Fatalf("%q decodes to %+v, its encoding %q to %+v, %v", data, e, b.Bytes(), again, err)
		}
	})
}
