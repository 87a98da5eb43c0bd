package wal

import (
	"errors"
	"testing"

	"github.com/skep-io/skep/store/seal"
)

// A snapshot that was written while the one before it waits to be marked stays.
func TestCompact_KeepsALaterSnapshot(t *testing.T) {
	m, kek := newMem(t), seal.NewKey()
	w := create(t, m, kek)
	if err := w.Save(Batch{hard(2, 9), entries(2, 9, 2)}); err != nil {
		t.Fatal(err)
	}
	first, second := snapshot(5, 2, 100), snapshot(7, 2, 100)
	err := errors.Join(
		save(w, first), save(w, second), w.Compact(first.GetMetadata(), 4), w.Compact(second.GetMetadata(), 6), w.Rotate())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, state, err := Open(small(m), kek)
	if err != nil || state.Snapshot.GetIndex() != 7 {
		t.Errorf("got snapshot %d, %v", state.Snapshot.GetIndex(), err)
	}
}
