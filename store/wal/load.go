package wal

import (
	"errors"
	"fmt"
	"runtime/debug"

	"go.etcd.io/bbolt"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/seal"
)

// load reads everything and checks it against invariant 2.
func (w *WAL) load(state *State) (err error) {
	defer guard(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	var mark *raftpb.SnapshotMetadata
	err = w.db.View(func(tx *bbolt.Tx) error {
		log, meta := tx.Bucket([]byte(logBucket)), tx.Bucket([]byte(metaBucket))
		if log == nil || meta == nil {
			return &CorruptError{What: "database", Err: errors.New("a part of it is missing")}
		}
		if mark, err = w.loadMeta(meta, state); err != nil {
			return err
		}
		return log.ForEach(func(k, v []byte) error {
			e, err := decodeEntry(w.ring, k, v)
			if err != nil {
				return err
			}
			state.Entries = append(state.Entries, e)
			return nil
		})
	})
	if err != nil {
		return err
	}
	if mark != nil {
		if state.Snapshot, err = readSnapshot(w.fs, w.dir, w.ring, mark); err != nil {
			return err
		}
	}
	return state.check()
}

func (w *WAL) loadMeta(meta *bbolt.Bucket, state *State) (mark *raftpb.SnapshotMetadata, err error) {
	state.Identity, state.HardState = &api.JoinResponse{}, &raftpb.HardState{}
	if err := w.getMeta(meta, identityKey, "identity", seal.KindIdentity, state.Identity); err != nil {
		return nil, err
	}
	if err := w.getMeta(meta, hardStateKey, "hard state", seal.KindHardState, state.HardState); err != nil {
		return nil, err
	}
	if meta.Get([]byte(markKey)) == nil {
		return nil, nil
	}
	mark = &raftpb.SnapshotMetadata{}
	return mark, w.getMeta(meta, markKey, "snapshot mark", seal.KindMark, mark)
}

func (w *WAL) getMeta(meta *bbolt.Bucket, key, what string, kind seal.Kind, into proto.Message) error {
	content, err := w.ring.Open(seal.Place{Kind: kind}, meta.Get([]byte(key)))
	if err == nil {
		err = proto.Unmarshal(content, into)
	}
	if err != nil {
		return &CorruptError{What: what, Err: err}
	}
	return nil
}

// check compares the parts of a state with each other.
func (s *State) check() error {
	start := s.Snapshot.GetMetadata().GetIndex()
	last := start
	for i, e := range s.Entries {
		expected := last + 1
		if i == 0 {
			// The log may reach back before the snapshot, but not start after it.
			expected = min(e.GetIndex(), start+1)
		}
		if e.GetIndex() != expected {
			return &CorruptError{What: "log entry", Index: expected, Err: fmt.Errorf("it is missing, the next one is %d", e.GetIndex())}
		}
		last = e.GetIndex()
	}
	if last < start && len(s.Entries) > 0 {
		return &CorruptError{What: "log entry", Index: last + 1, Err: errors.New("it is missing, although the snapshot is newer")}
	}
	if commit := s.HardState.GetCommit(); commit > last {
		return &CorruptError{What: "log entry", Index: last + 1, Err: fmt.Errorf("it is missing, although %d was committed", commit)}
	}
	return nil
}

// Rotate gives the directory a fresh data key, seals everything with it again, and forgets the old ones.
func (w *WAL) Rotate() error {
	if err := w.ring.Rotate(); err != nil {
		return err
	}
	var state State
	if err := w.load(&state); err != nil {
		return err
	}
	if state.Snapshot != nil {
		if err := w.WriteSnapshot(state.Snapshot); err != nil {
			return err
		}
	}
	identity, err := proto.Marshal(state.Identity)
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	err = w.update(func(tx *bbolt.Tx) error {
		if err := w.putMeta(tx, identityKey, seal.KindIdentity, identity); err != nil {
			return err
		}
		if err := w.putHardState(tx, state.HardState); err != nil {
			return err
		}
		if state.Snapshot != nil {
			if err := w.putMark(tx, state.Snapshot.GetMetadata()); err != nil {
				return err
			}
		}
		return w.putEntries(tx, state.Entries)
	})
	if err != nil {
		return err
	}
	return w.ring.Prune()
}
