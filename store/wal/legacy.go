package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// Format 1 kept the log in a bbolt database:
//
//	raft.db   bucket "log": index, 8 bytes big-endian -> term, 8 bytes big-endian, and an envelope of the entry's type (1 byte)
//	          and data; bucket "meta": "hardstate", "identity", "mark" -> envelopes
const (
	databaseFile = "raft.db"
	logBucket    = "log"
	metaBucket   = "meta"
	hardStateKey = "hardstate"
	identityKey  = "identity"
	markKey      = "mark"
	// lockTimeout is how long to wait for another process that has the database open.
	lockTimeout = 2 * time.Second
)

// migrate brings a directory of format 1 to the present one. Until the format file says so, nothing of the old is changed.
func (w *WAL) migrate(cluster string) error {
	state, err := w.loadDatabase()
	if err != nil {
		return err
	}
	numbers, err := listSegments(w.fs, w.dir) // an earlier try that was interrupted
	if err != nil {
		return err
	}
	for _, number := range numbers {
		if err := w.fs.Remove(filepath.Join(w.dir, segment{number: number}.name())); err != nil {
			return fmt.Errorf("clear data directory: %w", err)
		}
	}
	w.identity, w.hard, w.mark = state.Identity, state.HardState, state.Snapshot
	if err := w.restate(state.Entries); err != nil {
		return err
	}
	if err := w.active.Close(); err != nil {
		return err
	}
	w.active = nil
	return vfs.WriteFile(w.fs, filepath.Join(w.dir, formatFile), filePerm, []byte(formatText(cluster, Version)))
}

// loadDatabase reads the log of format 1 and checks it.
func (w *WAL) loadDatabase() (state *State, err error) {
	// bbolt panics, or touches memory that is not there, on some kinds of damage.
	defer func() {
		if r := recover(); r != nil {
			state, err = nil, &CorruptError{What: "database", Err: fmt.Errorf("%v", r)}
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	db, err := bbolt.Open(filepath.Join(w.dir, databaseFile), filePerm, &bbolt.Options{
		ReadOnly: true, Timeout: lockTimeout, OpenFile: w.fs.OpenOS, NoStatistics: true,
	})
	if err != nil {
		return nil, &CorruptError{What: "database", Err: err}
	}
	state = &State{Identity: &api.JoinResponse{}, HardState: &raftpb.HardState{}}
	err = db.View(func(tx *bbolt.Tx) error {
		log, meta := tx.Bucket([]byte(logBucket)), tx.Bucket([]byte(metaBucket))
		if log == nil || meta == nil {
			return &CorruptError{What: "database", Err: errors.New("a part of it is missing")}
		}
		if err := w.loadMeta(meta, state); err != nil {
			return err
		}
		return log.ForEach(func(k, v []byte) error {
			e, err := decodeEntry(w.ring, k, v)
			state.Entries = append(state.Entries, e)
			return err
		})
	})
	if err = errors.Join(err, db.Close()); err != nil {
		return nil, err
	}
	return state, state.check()
}

func (w *WAL) loadMeta(meta *bbolt.Bucket, state *State) error {
	if err := w.getMeta(meta, identityKey, "identity", seal.KindIdentity, state.Identity); err != nil {
		return err
	}
	if err := w.getMeta(meta, hardStateKey, "hard state", seal.KindHardState, state.HardState); err != nil {
		return err
	}
	if meta.Get([]byte(markKey)) == nil {
		return nil
	}
	state.Snapshot = &raftpb.SnapshotMetadata{}
	return w.getMeta(meta, markKey, "snapshot mark", seal.KindMark, state.Snapshot)
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

func decodeEntry(ring *seal.Ring, key, value []byte) (*raftpb.Entry, error) {
	if len(key) != 8 {
		return nil, &CorruptError{What: "log entry", Err: fmt.Errorf("a key of %d bytes", len(key))}
	}
	index := binary.BigEndian.Uint64(key)
	if len(value) < 8 {
		return nil, &CorruptError{What: "log entry", Index: index, Err: fmt.Errorf("%d bytes are too few", len(value))}
	}
	term := binary.BigEndian.Uint64(value)
	content, err := ring.Open(seal.Place{Kind: seal.KindEntry, Index: index, Term: term}, value[8:])
	if err == nil && (len(content) == 0 || content[0] > byte(raftpb.EntryConfChangeV2)) {
		err = errors.New("unknown type of entry")
	}
	if err != nil {
		return nil, &CorruptError{What: "log entry", Index: index, Err: err}
	}
	e := &raftpb.Entry{Index: &index, Term: &term, Type: raftpb.EntryType(content[0]).Enum()}
	if len(content) > 1 {
		e.Data = content[1:]
	}
	return e, nil
}
