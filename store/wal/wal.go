package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"sync"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// WAL is an open directory.
type WAL struct {
	// Constant after Open.
	fs          vfs.FS
	dir         string
	ring        *seal.Ring
	segmentSize int
	lock        io.Closer

	// Owned by the goroutine that changes the log.
	identity *api.JoinResponse
	hard     *raftpb.HardState        // never nil
	mark     *raftpb.SnapshotMetadata // of the snapshot that counts, or nil
	segments []segment                // oldest first; the last one is written to
	active   vfs.FixedFile            // the file of the last segment, or nil
	offset   int                      // in it
	number   uint64                   // of the last frame
	buffer   []byte                   // for the frame that is being written
	plain    []byte                   // likewise
	records  []byte                   // likewise

	spare spare
}

// spare is a segment that is kept ready, because filling one takes longer than any write.
type spare struct {
	mu    sync.Mutex
	ready bool
}

// Disk says where a WAL is kept.
type Disk struct {
	FS  vfs.FS
	Dir string
	// SegmentSize is the size of new segments in bytes, a multiple of 512; 0 is DefaultSegmentSize. Tests have small ones.
	SegmentSize int
}

func (d Disk) segmentSize() int {
	if d.SegmentSize == 0 {
		return DefaultSegmentSize
	}
	return d.SegmentSize
}

// State is what a directory holds.
type State struct {
	Cluster string
	// Identity is this manager's raft id, and the members when it joined. Never nil.
	Identity *api.JoinResponse
	// HardState is never nil.
	HardState *raftpb.HardState
	// Snapshot describes what Entries build on, or nil: then they start at 1, or there are none. Its data are read by
	// OpenSnapshot.
	Snapshot *raftpb.SnapshotMetadata
	// Entries may start before the end of Snapshot: those are kept for followers that lag.
	Entries []*raftpb.Entry
	// Torn says that a crash cut the last write short. It is not part of the state, and nobody was told that it was durable.
	Torn bool
}

// Create makes a store in an empty directory, or over what an interrupted Create left there. The snapshot is the state to start
// from, or nil on a manager that will receive it from the others.
func Create(disk Disk, cluster string, kek seal.Key, source seal.Source, identity *api.JoinResponse, start *raftpb.Snapshot) error {
	if err := begin(disk.FS, disk.Dir); err != nil {
		return err
	}
	ring, err := seal.CreateRing(disk.FS, filepath.Join(disk.Dir, ringFile), cluster, kek, source)
	if err != nil {
		return err
	}
	w := &WAL{
		fs: disk.FS, dir: disk.Dir, ring: ring, segmentSize: disk.segmentSize(), identity: identity, hard: &raftpb.HardState{},
	}
	if start != nil {
		meta := start.GetMetadata()
		if err := w.WriteSnapshot(meta, fromBytes(start.GetData())); err != nil {
			return err
		}
		w.mark, w.hard = meta, &raftpb.HardState{Term: meta.Term, Vote: new(uint64), Commit: meta.Index}
	}
	if err := w.write(frame{}, nil); err != nil {
		return errors.Join(err, w.Close())
	}
	if err := w.Close(); err != nil {
		return err
	}
	return complete(disk.FS, disk.Dir, cluster)
}

// Close closes the files.
func (w *WAL) Close() error {
	var errs []error
	if w.active != nil {
		errs = append(errs, w.active.Close())
		w.active = nil
	}
	if w.lock != nil {
		errs = append(errs, w.lock.Close())
		w.lock = nil
	}
	return errors.Join(errs...)
}

// Ring is the key ring, for changing the KEK.
func (w *WAL) Ring() *seal.Ring { return w.ring }

// Batch is what becomes durable in one step.
type Batch struct {
	// HardState is not written when it is empty.
	HardState *raftpb.HardState
	// Entries replace those from the first one's index on.
	Entries []*raftpb.Entry
}

// Save makes batches durable, in order and in one step.
func (w *WAL) Save(batches ...Batch) error {
	f, records := frame{}, w.records[:0]
	hard, last := w.hard, uint64(0)
	for _, b := range batches {
		for _, e := range b.Entries {
			if f.index == 0 {
				f.index, f.term = e.GetIndex(), e.GetTerm()
			}
			records = appendEntry(records, recordEntry, e)
			last = max(last, e.GetIndex())
		}
		if !raft.IsEmptyHardState(b.HardState) {
			hard = b.HardState
		}
	}
	if hard != w.hard {
		records = appendHardState(records, hard)
	}
	w.records = records
	if err := w.write(f, records); err != nil {
		return err
	}
	w.hard = hard
	w.noteEntries(last)
	return nil
}

func (w *WAL) noteEntries(last uint64) {
	active := &w.segments[len(w.segments)-1]
	active.last = max(active.last, last)
}

// Install replaces the whole log by a snapshot that came from another manager, and makes it durable.
func (w *WAL) Install(s *raftpb.Snapshot, hard *raftpb.HardState) error {
	meta := s.GetMetadata()
	if err := w.WriteSnapshot(meta, fromBytes(s.GetData())); err != nil {
		return err
	}
	records := append(appendMark(nil, meta), recordReset)
	if raft.IsEmptyHardState(hard) {
		hard = w.hard
	} else {
		records = appendHardState(records, hard)
	}
	if err := w.write(frame{}, records); err != nil {
		return err
	}
	w.mark, w.hard = meta, hard
	if err := w.removeSegments(meta.GetIndex() + 1<<32); err != nil { // nothing in them counts any more
		return err
	}
	return w.removeOthers(meta)
}

// Compact makes a snapshot that WriteSnapshot wrote the start of the log, and lets go of the entries up to keep, which is at
// most the snapshot's index. They go with their segment.
func (w *WAL) Compact(meta *raftpb.SnapshotMetadata, keep uint64) error {
	if err := w.write(frame{}, appendMark(nil, meta)); err != nil {
		return err
	}
	w.mark = meta
	if err := w.removeSegments(keep); err != nil {
		return err
	}
	return w.removeOthers(meta)
}

// write makes a frame durable. It sets the frame's number and place.
func (w *WAL) write(f frame, records []byte) error {
	f.number, f.records = w.number+1, records
	full := len(w.segments) == 0 || w.offset+frameSize(len(records)) > w.segments[len(w.segments)-1].size
	if full || w.offset == sectorSize { // a crash may have left a segment without its first frame
		state, err := w.state()
		if err != nil {
			return err
		}
		f.records = append(state, records...)
		full = full || w.offset+frameSize(len(f.records)) > w.segments[len(w.segments)-1].size
	}
	if full {
		if err := w.roll(f); err != nil {
			return fmt.Errorf("begin a log segment: %w", err)
		}
	}
	size := frameSize(len(f.records))
	if size > maxFrame {
		return fmt.Errorf("write log: %w: a frame of %d bytes", vfs.ErrTooLarge, size)
	}
	var err error
	if w.buffer, w.plain, err = encodeFrame(w.buffer[:0], w.plain, w.ring, f); err != nil {
		return err
	}
	if _, err := w.active.WriteAt(w.buffer, int64(w.offset)); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	if err := w.active.Sync(); err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	w.number = f.number
	w.offset += size
	return nil
}

// state is what each segment starts with, so that those before it may go.
func (w *WAL) state() ([]byte, error) {
	b, err := appendIdentity(nil, w.identity)
	if err != nil {
		return nil, err
	}
	b = appendHardState(b, w.hard)
	if w.mark != nil {
		b = appendMark(b, w.mark)
	}
	return b, nil
}

// roll begins the segment that f is the first frame of.
func (w *WAL) roll(f frame) error {
	next := segment{number: 1, first: f.number, size: max(w.segmentSize, sectorSize+frameSize(len(f.records)))}
	if n := len(w.segments); n > 0 {
		next.number = w.segments[n-1].number + 1
	}
	if err := w.createSegment(next); err != nil {
		return err
	}
	file, err := w.fs.OpenFixed(filepath.Join(w.dir, next.name()))
	if err != nil {
		return err
	}
	if w.active != nil {
		err = w.active.Close()
	}
	w.segments, w.active, w.offset = append(w.segments, next), file, sectorSize
	return err
}

func (w *WAL) createSegment(s segment) error {
	path := filepath.Join(w.dir, s.name())
	w.spare.mu.Lock()
	defer w.spare.mu.Unlock()
	if !w.spare.ready || s.size != w.segmentSize {
		return vfs.WriteStream(w.fs, path, filePerm, func(to io.Writer) error {
			if _, err := to.Write(s.head()); err != nil {
				return err
			}
			return writeZeros(to, s.size-sectorSize)
		})
	}
	w.spare.ready = false
	file, err := w.fs.OpenFixed(filepath.Join(w.dir, spareFile))
	if err != nil {
		return err
	}
	_, err = file.WriteAt(s.head(), 0)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if err := w.fs.Rename(filepath.Join(w.dir, spareFile), path); err != nil {
		return err
	}
	return w.fs.SyncDir(w.dir)
}

// Prepare fills the next segment, so that no write has to wait for it. It may run beside everything else.
func (w *WAL) Prepare() error {
	w.spare.mu.Lock()
	defer w.spare.mu.Unlock()
	if w.spare.ready {
		return nil
	}
	err := vfs.WriteStream(w.fs, filepath.Join(w.dir, spareFile), filePerm, func(to io.Writer) error {
		return writeZeros(to, w.segmentSize)
	})
	if err != nil {
		return fmt.Errorf("prepare a log segment: %w", err)
	}
	w.spare.ready = true
	return nil
}

// Prepared reports whether a segment is ready or on its way.
func (w *WAL) Prepared() bool {
	if !w.spare.mu.TryLock() {
		return true
	}
	defer w.spare.mu.Unlock()
	return w.spare.ready
}

// removeSegments removes the oldest segments as long as they hold nothing after the index keep. The active one stays.
func (w *WAL) removeSegments(keep uint64) error {
	for len(w.segments) > 1 && w.segments[0].last <= keep {
		if err := w.fs.Remove(filepath.Join(w.dir, w.segments[0].name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove old log segment: %w", err)
		}
		w.segments = w.segments[1:]
	}
	return nil
}

// removeOthers removes all snapshots before the marked one. A later one may have been written meanwhile, to be marked next.
func (w *WAL) removeOthers(marked *raftpb.SnapshotMetadata) error {
	names, err := w.fs.ReadDir(w.dir)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	for _, name := range names {
		if isSnapshot(name) && name < snapshotName(marked) && !vfs.IsTemp(name) {
			if err := w.fs.Remove(filepath.Join(w.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove old snapshot: %w", err)
			}
		}
	}
	return nil
}
