package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/skep-io/skep/store/seal"
)

// restateBytes bounds the entries in one frame when they are written again.
const restateBytes = 4 << 20

// Rotate gives the directory a fresh data key, seals everything with it again, and forgets the old ones. A crash at any moment
// leaves a directory that opens: until the last step, both keys are in the ring, and what is written again says the same.
//
// It is BeginRotation, ResealSnapshot and FinishRotation, which leave most of the work beside the log.
func (w *WAL) Rotate() error {
	if err := w.BeginRotation(); err != nil {
		return err
	}
	if w.mark != nil {
		if err := w.ResealSnapshot(w.mark.GetIndex(), w.mark.GetTerm()); err != nil {
			return err
		}
	}
	return w.FinishRotation()
}

// BeginRotation makes a fresh data key seal everything from now on.
func (w *WAL) BeginRotation() error { return w.ring.Rotate() }

// ResealSnapshot seals a snapshot again, with the present data key. It may run beside writes; where another snapshot takes its
// place meanwhile, it does nothing.
func (w *WAL) ResealSnapshot(index, term uint64) error {
	r, err := w.OpenSnapshot(index, term)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = w.WriteSnapshot(r.Meta, func(to io.Writer) error {
		_, err := io.Copy(to, r)
		return err
	})
	return errors.Join(err, r.Close())
}

// FinishRotation seals the log again and forgets all data keys but the present one.
func (w *WAL) FinishRotation() error {
	if w.mark != nil {
		if err := w.checkSealed(w.mark); err != nil {
			return err
		}
	}
	var r replay
	if _, err := w.readLog(&r); err != nil {
		return err
	}
	w.offset = w.segments[len(w.segments)-1].size // the next frame begins a segment
	before := len(w.segments)
	if err := w.restate(r.entries); err != nil {
		return err
	}
	for range before {
		w.segments[0].last = 0
		if err := w.removeSegments(0); err != nil {
			return err
		}
	}
	return w.ring.Prune()
}

// checkSealed makes sure that the present data key seals a snapshot: the others are about to be forgotten.
func (w *WAL) checkSealed(mark *raftpb.SnapshotMetadata) error {
	f, err := w.fs.Open(filepath.Join(w.dir, snapshotName(mark)))
	if err != nil {
		return &CorruptError{What: "snapshot", Index: mark.GetIndex(), Err: err}
	}
	head := make([]byte, len(snapshotMagic)+4+seal.Overhead)
	_, err = io.ReadFull(f, head)
	if err = errors.Join(err, f.Close()); err != nil {
		return &CorruptError{What: "snapshot", Index: mark.GetIndex(), Err: err}
	}
	if !w.ring.SealedNow(head[len(snapshotMagic)+4:]) {
		return fmt.Errorf("rotate the data key: snapshot %d is still sealed by the former one", mark.GetIndex())
	}
	return nil
}

// restate writes entries again, into new segments.
func (w *WAL) restate(entries []*raftpb.Entry) error {
	for first := true; first || len(entries) > 0; first = false {
		f, records, last := frame{}, w.records[:0], uint64(0)
		for len(entries) > 0 && len(records) < restateBytes {
			e := entries[0]
			if f.index == 0 {
				f.index, f.term = e.GetIndex(), e.GetTerm()
			}
			records, last, entries = appendEntry(records, recordRestated, e), e.GetIndex(), entries[1:]
		}
		w.records = records
		if err := w.write(f, records); err != nil {
			return err
		}
		w.noteEntries(last)
	}
	return nil
}
