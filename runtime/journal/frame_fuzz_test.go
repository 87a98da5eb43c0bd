package journal

import (
	"bytes"
	"maps"
	"testing"
)

// FuzzParse: whatever a file holds, what was read of it is read again from a file that has just that.
func FuzzParse(f *testing.F) {
	f.Add([]byte(magic))
	f.Add(append([]byte(magic), frame(kindPut, "a", []byte("one"))...))
	f.Add(append(append([]byte(magic), frame(kindPut, "a", nil)...), frame(kindDelete, "a", nil)...))
	f.Fuzz(func(t *testing.T, text []byte) {
		records, _ := parse(text)
		again := []byte(magic)
		for key, data := range records {
			again = append(again, frame(kindPut, key, data)...)
		}
		got, damaged := parse(append(again, make([]byte, 64)...))
		if damaged != nil || !maps.EqualFunc(records, got, bytes.Equal) {
			t.Errorf("%q was read as %q, and that as %q, damaged: %v", text, records, got, damaged)
		}
	})
}
