package vfs

import (
	"bytes"
	"testing"

	"pgregory.net/rapid"
)

// TestContent_IsWhatWasWritten compares a content and its copies with slices of bytes.
func TestContent_IsWhatWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		contents, want := []content{{}}, [][]byte{nil}
		check := func(i int) {
			got := make([]byte, contents[i].size+1)
			got = got[:contents[i].read(got, 0)]
			if !bytes.Equal(got, want[i]) {
				t.Fatalf("content %d is not what was written", i)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				i := rapid.IntRange(0, len(contents)-1).Draw(t, "content")
				offset := rapid.IntRange(0, 3*pageSize).Draw(t, "offset")
				p := bytes.Repeat([]byte{rapid.Byte().Draw(t, "byte")}, rapid.IntRange(0, 2*pageSize).Draw(t, "length"))
				contents[i].write(p, offset)
				if grow := offset + len(p) - len(want[i]); grow > 0 {
					want[i] = append(want[i], make([]byte, grow)...)
				}
				copy(want[i][offset:], p)
			},
			"clone": func(t *rapid.T) {
				i := rapid.IntRange(0, len(contents)-1).Draw(t, "content")
				contents, want = append(contents, contents[i].clone()), append(want, bytes.Clone(want[i]))
			},
			"read": func(t *rapid.T) {
				i := rapid.IntRange(0, len(contents)-1).Draw(t, "content")
				offset := rapid.IntRange(0, 5*pageSize).Draw(t, "offset")
				got := make([]byte, rapid.IntRange(0, 2*pageSize).Draw(t, "length"))
				got = got[:contents[i].read(got, offset)]
				from := want[i][min(offset, len(want[i])):]
				if !bytes.HasPrefix(from, got) || len(got) < min(cap(got), len(from)) {
					t.Fatalf("content %d is not what was written", i)
				}
			},
			"": func(*rapid.T) {
				for i := range contents {
					check(i)
				}
			},
		})
	})
}
