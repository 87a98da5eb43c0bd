package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/runtime/journal"
)

// open opens a journal that must not be damaged.
func open(t testing.TB, path string) (*journal.Journal, map[string]string) {
	t.Helper()
	j, records, damaged, err := journal.Open(path)
	if err != nil || damaged != nil {
		t.Fatalf("Open: %v, damaged: %v", err, damaged)
	}
	t.Cleanup(func() { j.Close() })
	return j, text(records)
}

func text(records map[string][]byte) map[string]string {
	out := map[string]string{}
	for k, v := range records {
		out[k] = string(v)
	}
	return out
}

func put(t testing.TB, j *journal.Journal, key, data string, durable bool) {
	t.Helper()
	if err := j.Put(key, []byte(data), durable); err != nil {
		t.Fatal(err)
	}
}

func TestJournal_RemembersTheLastRecordOfEachKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, got := open(t, path)
	if len(got) != 0 {
		t.Errorf("a new journal has %v", got)
	}
	put(t, j, "a", "one", false)
	put(t, j, "b", "two", true)
	put(t, j, "a", "three", false)
	put(t, j, "c", "", false)
	put(t, j, "d", "gone", true)
	if err := j.Delete("d"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a": "three", "b": "two", "c": ""}
	for range 2 { // the second time from the file that Open wrote
		_, got := open(t, path)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("records (-want +got):\n%s", diff)
		}
	}
}

func TestJournal_StaysAsSmallAsItsLiveRecords(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _ := open(t, path)
	data := strings.Repeat("x", 400)
	want := map[string]string{}
	for i := range 5000 { // 2 MB
		key := fmt.Sprint("k", i)
		put(t, j, key, data, i%100 == 0)
		if i%50 == 0 {
			want[key] = data
			continue
		}
		if err := j.Delete(key); err != nil {
			t.Fatal(err)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Size() > 512<<10 {
		t.Errorf("%d bytes, %v; 40 KB are live", st.Size(), err)
	}
	if _, got := open(t, path); !maps.Equal(want, got) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}

func TestJournal_RefusesWhatItCouldNotRead(t *testing.T) {
	j, _ := open(t, filepath.Join(t.TempDir(), "journal"))
	for _, tc := range []struct {
		key  string
		size int
	}{{"", 1}, {strings.Repeat("k", 256), 1}, {"k", 64<<10 + 1}} {
		if err := j.Put(tc.key, make([]byte, tc.size), false); !errors.Is(err, journal.ErrRecord) {
			t.Errorf("a key of %d and %d bytes: %v, want ErrRecord", len(tc.key), tc.size, err)
		}
	}
	put(t, j, strings.Repeat("k", 255), strings.Repeat("x", 64<<10), true)
}

// TestJournal_EveryPlaceToCrash cuts a journal off after each of its bytes, as a crash in the middle of a write does,
// and opens what is left: it has the state after one of the writes, and no less than was written whole.
func TestJournal_EveryPlaceToCrash(t *testing.T) { // I2, I3
	dir := t.TempDir()
	path := filepath.Join(dir, "journal")
	j, _ := open(t, path)
	states := []map[string]string{{}}
	ends := []int{used(t, path)}
	for i, step := range []struct{ key, data string }{{"a", "1"}, {"b", "2"}, {"a", "3\x00"}, {"b", ""}, {"c", "\x00\x00"}} {
		state := maps.Clone(states[i])
		if step.data == "" {
			if err := j.Delete(step.key); err != nil {
				t.Fatal(err)
			}
			delete(state, step.key)
		} else {
			put(t, j, step.key, step.data, false)
			state[step.key] = step.data
		}
		states, ends = append(states, state), append(ends, frameEnd(ends[i], step.key, step.data))
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for cut := ends[0]; cut <= ends[len(ends)-1]; cut++ {
		if at+1 < len(ends) && cut >= ends[at+1] {
			at++
		}
		torn := append(bytes.Clone(whole[:cut]), make([]byte, len(whole)-cut)...)
		name := filepath.Join(dir, "torn")
		if err := os.WriteFile(name, torn, 0o600); err != nil {
			t.Fatal(err)
		}
		next, records, damaged, err := journal.Open(name)
		if err != nil || damaged != nil {
			t.Fatalf("cut at %d: %v, damaged: %v", cut, err, damaged)
		}
		next.Close()
		if got := text(records); !maps.Equal(states[at], got) && !(at+1 < len(states) && maps.Equal(states[at+1], got)) {
			t.Errorf("cut at %d: %v, want %v or the next", cut, got, states[at])
		}
	}
}

// frameEnd is where a frame ends that begins at a place.
func frameEnd(at int, key, data string) int { return at + 8 + 2 + len(key) + len(data) }

// used is how far the zeros reach back from the end of a file.
func used(t *testing.T, path string) int {
	t.Helper()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return len(bytes.TrimRight(whole, "\x00"))
}

func TestJournal_DamageIsSaid(t *testing.T) { // I3
	path := filepath.Join(t.TempDir(), "journal")
	j, _ := open(t, path)
	put(t, j, "a", "one", false)
	put(t, j, "b", "two", false)
	put(t, j, "c", "three", true)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	second := frameEnd(8, "a", "one")
	for name, tc := range map[string]struct {
		edit func([]byte)
		want map[string]string
	}{
		"a bit of data":   {func(b []byte) { b[second+8+3] ^= 1 }, map[string]string{"a": "one"}},
		"a length":        {func(b []byte) { b[second+3] = 0xff }, map[string]string{"a": "one"}},
		"a frame of zero": {func(b []byte) { clear(b[second:frameEnd(second, "b", "two")]) }, map[string]string{"a": "one"}},
		"the beginning":   {func(b []byte) { b[0] = 'x' }, map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			bad := bytes.Clone(whole)
			tc.edit(bad)
			name := filepath.Join(t.TempDir(), "journal")
			if err := os.WriteFile(name, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			next, records, damaged, err := journal.Open(name)
			if err != nil || damaged == nil {
				t.Fatalf("Open: %v, damaged: %v", err, damaged)
			}
			next.Close()
			if diff := cmp.Diff(tc.want, text(records)); diff != "" {
				t.Errorf("what could be read (-want +got):\n%s", diff)
			}
			open(t, name) // it was written anew
		})
	}
}

func TestJournal_ManyAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _ := open(t, path)
	var wg sync.WaitGroup
	want := map[string]string{}
	data := strings.Repeat("x", 1000)
	for w := range 8 {
		for i := range 100 { // the file is replaced a few times meanwhile
			want[fmt.Sprintf("%d-%d", w, i)] = data
		}
		wg.Go(func() {
			for i := range 100 {
				if err := j.Put(fmt.Sprintf("%d-%d", w, i), []byte(data), i%10 == 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if _, got := open(t, path); !maps.Equal(want, got) {
		t.Errorf("%d records, want %d", len(got), len(want))
	}
}

func BenchmarkPut(b *testing.B) {
	data := []byte(strings.Repeat("x", 350))
	for name, durable := range map[string]bool{"durable": true, "not durable": false} {
		b.Run(name, func(b *testing.B) {
			j, _ := open(b, filepath.Join(b.TempDir(), "journal"))
			for b.Loop() {
				if err := j.Put("key", data, durable); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
