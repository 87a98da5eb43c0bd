package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	boltErrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

const (
	logBucket    = "log"
	metaBucket   = "meta"
	hardStateKey = "hardstate"
	identityKey  = "identity"
	markKey      = "mark"
	// lockTimeout is how long Open waits for another process that has the directory open.
	lockTimeout = 2 * time.Second
)

// WAL is an open directory.
type WAL struct {
	// Constant after Open.
	fs   vfs.FS
	dir  string
	ring *seal.Ring
	db   *bbolt.DB
}

// State is what a directory holds.
type State struct {
	Cluster string
	// Identity is this manager's raft id, and the members when it joined. Never nil.
	Identity *api.JoinResponse
	// HardState is never nil.
	HardState *raftpb.HardState
	// Snapshot is what Entries build on, or nil: then they start at 1, or there are none.
	Snapshot *raftpb.Snapshot
	// Entries may start before the end of Snapshot: those are kept for followers that lag.
	Entries []*raftpb.Entry
}

// Create makes a store in dir, which must not hold one yet. The snapshot is the state to start from, or nil on a manager that
// will receive it from the others.
func Create(fsys vfs.FS, dir, cluster string, kek seal.Key, source seal.Source, identity *api.JoinResponse, start *raftpb.Snapshot) error {
	if err := begin(fsys, dir); err != nil {
		return err
	}
	ring, err := seal.CreateRing(fsys, filepath.Join(dir, ringFile), cluster, kek, source)
	if err != nil {
		return err
	}
	w := &WAL{fs: fsys, dir: dir, ring: ring}
	if err := w.openDatabase(); err != nil {
		return err
	}
	err = w.initialize(identity, start)
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	if err := fsys.SyncDir(dir); err != nil { // the name of the database
		return err
	}
	return complete(fsys, dir, cluster)
}

func (w *WAL) initialize(identity *api.JoinResponse, start *raftpb.Snapshot) error {
	content, err := proto.Marshal(identity)
	if err != nil {
		return fmt.Errorf("encode identity: %w", err)
	}
	err = w.update(func(tx *bbolt.Tx) error {
		for _, name := range []string{logBucket, metaBucket} {
			if _, err := tx.CreateBucket([]byte(name)); err != nil {
				return err
			}
		}
		if err := w.putMeta(tx, identityKey, seal.KindIdentity, content); err != nil {
			return err
		}
		return w.putHardState(tx, &raftpb.HardState{})
	})
	if err != nil || start == nil {
		return err
	}
	return w.Install(start, &raftpb.HardState{
		Term: start.GetMetadata().Term, Vote: new(uint64), Commit: start.GetMetadata().Index,
	})
}

// Open reads the store in dir. It returns ErrNone, ErrFormat, seal.ErrWrongKey or a *CorruptError.
func Open(fsys vfs.FS, dir string, kek seal.Key) (*WAL, *State, error) {
	cluster, err := readFormat(fsys, dir)
	if err != nil {
		return nil, nil, err
	}
	ring, err := seal.OpenRing(fsys, filepath.Join(dir, ringFile), cluster, kek)
	if err != nil {
		return nil, nil, err
	}
	w := &WAL{fs: fsys, dir: dir, ring: ring}
	if err := w.openDatabase(); err != nil {
		return nil, nil, err
	}
	state := &State{Cluster: cluster}
	if err := errors.Join(w.load(state)); err != nil {
		return nil, nil, errors.Join(err, w.Close())
	}
	return w, state, nil
}

// openDatabase opens the bbolt file. bbolt panics, or touches memory that is not there, on some kinds of damage.
func (w *WAL) openDatabase() (err error) {
	path := filepath.Join(w.dir, databaseFile)
	defer guard(&err)
	w.db, err = bbolt.Open(path, filePerm, &bbolt.Options{
		// The free list is kept on disk, because bbolt rebuilds a missing one in a goroutine whose panics nobody can catch.
		Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType, OpenFile: w.fs.OpenOS, NoStatistics: true,
	})
	switch {
	case errors.Is(err, boltErrors.ErrTimeout):
		return fmt.Errorf("open %s: another process uses it", path)
	case errors.Is(err, boltErrors.ErrInvalid), errors.Is(err, boltErrors.ErrChecksum), errors.Is(err, boltErrors.ErrVersionMismatch):
		return &CorruptError{What: "database", Err: err}
	case err != nil:
		return fmt.Errorf("open %s: %w", path, err)
	}
	return nil
}

// guard turns a panic over damaged data into a *CorruptError. Use it with defer.
func guard(err *error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	if r := recover(); r != nil {
		*err = &CorruptError{What: "database", Err: fmt.Errorf("%v", r)}
	}
}

// Close closes the database.
func (w *WAL) Close() error { return w.db.Close() }

// Ring is the key ring, for changing the KEK.
func (w *WAL) Ring() *seal.Ring { return w.ring }

func (w *WAL) update(fn func(*bbolt.Tx) error) (err error) {
	defer guard(&err)
	if err := w.db.Update(fn); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	return nil
}

// Batch is what becomes durable in one step.
type Batch struct {
	// HardState is not written when it is empty.
	HardState *raftpb.HardState
	// Entries replace those from the first one's index on.
	Entries []*raftpb.Entry
}

// Save makes batches durable, in order and in one step.
func (w *WAL) Save(batches ...Batch) error {
	return w.update(func(tx *bbolt.Tx) error {
		for _, b := range batches {
			if err := w.putEntries(tx, b.Entries); err != nil {
				return err
			}
			if raft.IsEmptyHardState(b.HardState) {
				continue
			}
			if err := w.putHardState(tx, b.HardState); err != nil {
				return err
			}
		}
		return nil
	})
}

// Install replaces the whole log by a snapshot that came from another manager, and makes it durable.
func (w *WAL) Install(s *raftpb.Snapshot, hard *raftpb.HardState) error {
	if err := w.WriteSnapshot(s); err != nil {
		return err
	}
	err := w.update(func(tx *bbolt.Tx) error {
		if err := tx.DeleteBucket([]byte(logBucket)); err != nil {
			return err
		}
		if _, err := tx.CreateBucket([]byte(logBucket)); err != nil {
			return err
		}
		if err := w.putMark(tx, s.GetMetadata()); err != nil || raft.IsEmptyHardState(hard) {
			return err
		}
		return w.putHardState(tx, hard)
	})
	if err != nil {
		return err
	}
	return w.removeOthers(s.GetMetadata())
}

// Compact makes a snapshot that WriteSnapshot wrote the start of the log, and drops the entries up to keep, which is at most
// the snapshot's index.
func (w *WAL) Compact(s *raftpb.SnapshotMetadata, keep uint64) error {
	err := w.update(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket([]byte(logBucket)).Cursor()
		var drop [][]byte
		for k, _ := cursor.First(); k != nil && binary.BigEndian.Uint64(k) <= keep; k, _ = cursor.Next() {
			drop = append(drop, k)
		}
		for _, k := range drop {
			if err := tx.Bucket([]byte(logBucket)).Delete(k); err != nil {
				return err
			}
		}
		return w.putMark(tx, s)
	})
	if err != nil {
		return err
	}
	return w.removeOthers(s)
}

// removeOthers removes all snapshots before the marked one. A later one may have been written meanwhile, to be marked next.
func (w *WAL) removeOthers(marked *raftpb.SnapshotMetadata) error {
	names, err := w.fs.ReadDir(w.dir)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	for _, name := range names {
		if isSnapshot(name) && name < snapshotName(marked) && !vfs.IsTemp(name) {
			if err := w.fs.Remove(filepath.Join(w.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("remove old snapshot: %w", err)
			}
		}
	}
	return nil
}

func indexKey(index uint64) []byte { return binary.BigEndian.AppendUint64(nil, index) }

func (w *WAL) putEntries(tx *bbolt.Tx, entries []*raftpb.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	log := tx.Bucket([]byte(logBucket))
	if err := truncate(log, entries[0].GetIndex()); err != nil {
		return err
	}
	log.FillPercent = 1 // indexes only grow
	for _, e := range entries {
		value, err := encodeEntry(w.ring, e)
		if err != nil {
			return err
		}
		if err := log.Put(indexKey(e.GetIndex()), value); err != nil {
			return err
		}
	}
	return nil
}

// truncate drops the entries from index on.
func truncate(log *bbolt.Bucket, index uint64) error {
	cursor := log.Cursor()
	last, _ := cursor.Last()
	if last == nil || binary.BigEndian.Uint64(last) < index {
		return nil
	}
	for end := binary.BigEndian.Uint64(last); index <= end; index++ {
		if err := log.Delete(indexKey(index)); err != nil {
			return err
		}
	}
	return nil
}

func entryPlace(index, term uint64) seal.Place {
	return seal.Place{Kind: seal.KindEntry, Index: index, Term: term}
}

func encodeEntry(ring *seal.Ring, e *raftpb.Entry) ([]byte, error) {
	content := append([]byte{byte(e.GetType())}, e.GetData()...)
	value := make([]byte, 0, 8+len(content)+seal.Overhead)
	value = binary.BigEndian.AppendUint64(value, e.GetTerm())
	value, err := ring.Seal(value, entryPlace(e.GetIndex(), e.GetTerm()), content)
	if err != nil {
		return nil, fmt.Errorf("seal entry %d: %w", e.GetIndex(), err)
	}
	return value, nil
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
	content, err := ring.Open(entryPlace(index, term), value[8:])
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

func (w *WAL) putMeta(tx *bbolt.Tx, key string, kind seal.Kind, content []byte) error {
	value, err := w.ring.Seal(nil, seal.Place{Kind: kind}, content)
	if err != nil {
		return fmt.Errorf("seal %s: %w", key, err)
	}
	return tx.Bucket([]byte(metaBucket)).Put([]byte(key), value)
}

func (w *WAL) putHardState(tx *bbolt.Tx, hard *raftpb.HardState) error {
	content, err := proto.Marshal(hard)
	if err != nil {
		return err
	}
	return w.putMeta(tx, hardStateKey, seal.KindHardState, content)
}

func (w *WAL) putMark(tx *bbolt.Tx, m *raftpb.SnapshotMetadata) error {
	content, err := proto.Marshal(&raftpb.SnapshotMetadata{Index: m.Index, Term: m.Term})
	if err != nil {
		return err
	}
	return w.putMeta(tx, markKey, seal.KindMark, content)
}
