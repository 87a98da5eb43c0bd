package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// stopped returns a log of two segments that was closed, its files, and what it holds.
func stopped(t testing.TB, kek seal.Key) (m *vfs.Mem, files map[string][]byte, holds whole) {
	t.Helper()
	m = newMem(t)
	w := create(t, m, kek)
	for i := uint64(2); i < 16; i++ {
		if err := w.Save(Batch{hard(2, i-1), entries(i, i, 2)}); err != nil {
			t.Fatal(err)
		}
	}
	w, state := reopen(t, w, kek)
	holds = found(t, w, state)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := m.ReadDir("/d")
	if err != nil {
		t.Fatal(err)
	}
	files = map[string][]byte{}
	for _, name := range names {
		if files[name], err = vfs.ReadFile(m, "/d/"+name, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	return m, files, holds
}

// put writes a file, and reads the log.
func put(t testing.TB, m *vfs.Mem, name string, content []byte, kek seal.Key) (*WAL, *State, error) {
	t.Helper()
	if err := vfs.WriteFile(m, "/d/"+name, filePerm, content); err != nil {
		t.Fatal(err)
	}
	return Open(small(m), kek)
}

// A flipped bit anywhere is found: where nothing was written yet, it looks like a write that a crash cut short, and is wiped.
func TestOpen_FindsEveryFlippedByte(t *testing.T) {
	kek := seal.NewKey()
	m, files, holds := stopped(t, kek)
	positions := 0
	for name, good := range files {
		if !isSegment(name) {
			continue
		}
		for at := range good {
			positions++
			bad := bytes.Clone(good)
			bad[at] ^= 1 << (at % 8)
			w, state, err := put(t, m, name, bad, kek)
			if err != nil {
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("%s at %d: %v", name, at, err)
				}
				continue
			}
			if got := found(t, w, state); !got.equal(holds) || !state.Torn || good[at] != 0 {
				t.Fatalf("%s at %d: not found, torn %v: %s", name, at, state.Torn, cmp.Diff(holds, got, protocmp.Transform()))
			}
			w.Close()
		}
		if _, _, err := put(t, m, name, good, kek); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d positions", positions)
}

// Files that were cut, lengthened, removed, exchanged or put back from former times are found.
func TestOpen_FindsFilesThatWereChanged(t *testing.T) {
	kek := seal.NewKey()
	_, files, _ := stopped(t, kek)
	first, second := segment{number: 1}.name(), segment{number: 2}.name()
	frameOf := func(name string, n int) []byte { // all frames of this test are equal in size but for the first of a segment
		b := files[name][sectorSize:]
		for range n {
			f, ok := decodeHead(b)
			if !ok {
				t.Fatalf("%s has no frame %d", name, n)
			}
			b = b[f.size:]
		}
		return b
	}
	overwrite := func(name string, n int, by []byte) []byte {
		b := bytes.Clone(files[name])
		copy(b[len(b)-len(frameOf(name, n)):], by)
		return b
	}
	tests := []struct {
		what    string
		name    string
		content []byte // nil removes the file
	}{
		{"cut to nothing", second, []byte{}},
		{"cut behind the head", second, files[second][:sectorSize]},
		{"cut at a frame", first, files[first][:3*sectorSize]},
		{"cut by a byte", second, files[second][:len(files[second])-1]},
		{"lengthened", second, append(bytes.Clone(files[second]), make([]byte, sectorSize)...)},
		{"first segment missing", first, nil},
		{"another segment's content", second, files[first]},
		{"a frame in the place of another", first, overwrite(first, 1, frameOf(first, 2)[:sectorSize])},
		{"a frame of another segment", second, overwrite(second, 1, frameOf(first, 1)[:sectorSize])},
		{"a frame blanked in the middle", first, overwrite(first, 1, make([]byte, sectorSize))},
		{"a frame again at the end", second, overwrite(second, 2, frameOf(second, 1)[:sectorSize])},
		{"a frame of absurd size", second, func() []byte {
			b := overwrite(second, 0, nil)
			binary.BigEndian.PutUint32(b[sectorSize+4:], 1<<31)
			return b
		}()},
	}
	for _, test := range tests {
		t.Run(test.what, func(t *testing.T) {
			m, _, _ := stopped(t, kek)
			for name, content := range files { // of the first log: the key ring, too
				if err := vfs.WriteFile(m, "/d/"+name, filePerm, content); err != nil {
					t.Fatal(err)
				}
			}
			var err error
			if test.content == nil {
				if err := m.Remove("/d/" + test.name); err != nil {
					t.Fatal(err)
				}
				_, _, err = Open(small(m), kek)
			} else {
				_, _, err = put(t, m, test.name, test.content, kek)
			}
			if !errors.Is(err, ErrCorrupt) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// FuzzFrame: what was never sealed never opens, and a changed frame is never taken for another or for the end of the log.
func FuzzFrame(f *testing.F) {
	kek := seal.NewKey()
	m := newMem(f)
	w := create(f, m, kek)
	defer w.Close()
	good, _, err := encodeFrame(nil, nil, w.ring, frame{number: 7, index: 5, term: 2, records: appendEntry(nil, recordEntry, entry(5, 2))})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(frameMagic), uint16(9), byte(1), true)
	f.Add(good, uint16(0), byte(0), false)
	f.Fuzz(func(t *testing.T, content []byte, at uint16, flip byte, behind bool) {
		rest := make([]byte, (len(content)/sectorSize+2)*sectorSize)
		copy(rest, content)
		if got, _, err := decodeFrame(rest, w.ring, 7); err == nil && got.size > 0 && !bytes.HasPrefix(content, good) {
			t.Fatal("decoded something that was never sealed")
		}
		changed := bytes.Clone(good)
		changed[int(at)%len(changed)] ^= flip
		tail := make([]byte, sectorSize)
		if behind {
			tail = rest
		}
		got, torn, err := decodeFrame(append(changed, tail...), w.ring, 7)
		if flip == 0 && (err != nil || got.size != len(good)) || flip != 0 && (err == nil || torn) {
			t.Fatalf("flip %x at %d: %d bytes, torn %v, %v", flip, at, got.size, torn, err)
		}
	})
}

// FuzzRecords: whatever the records say, replaying them does not panic, and leaves entries that follow each other.
func FuzzRecords(f *testing.F) {
	whole := appendHardState(appendMark(nil, snapshot(4, 2, 0).Metadata), hard(2, 3))
	for i := uint64(5); i < 8; i++ {
		whole = appendEntry(whole, recordEntry, entry(i, 2))
	}
	whole = appendEntry(append(whole, recordReset), recordRestated, entry(9, 3))
	f.Add(whole)
	f.Add([]byte{recordIdentity, 0, 0, 0, 1, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r replay
		err := r.take(b)
		var corrupt *CorruptError
		if err != nil && errors.As(err, &corrupt) && corrupt.Index == 0 {
			t.Error("damage without an index")
		}
		for i, e := range r.entries {
			if e.GetIndex() != r.entries[0].GetIndex()+uint64(i) {
				t.Fatalf("entry %d at place %d", e.GetIndex(), i)
			}
		}
	})
}
