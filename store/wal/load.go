package wal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// Open reads the store in a directory, and checks all of its log; the snapshot is checked by whoever reads it, which the store
// does before anything counts. It brings a directory of format 1 to the present one. It returns ErrNone, ErrFormat,
// seal.ErrWrongKey or a *CorruptError.
func Open(disk Disk, kek seal.Key) (*WAL, *State, error) {
	cluster, version, err := readFormat(disk.FS, disk.Dir)
	if err != nil {
		return nil, nil, err
	}
	ring, err := seal.OpenRing(disk.FS, filepath.Join(disk.Dir, ringFile), cluster, kek)
	if err != nil {
		return nil, nil, err
	}
	lock, err := lockDir(disk.FS, disk.Dir)
	if err != nil {
		return nil, nil, err
	}
	w := &WAL{fs: disk.FS, dir: disk.Dir, ring: ring, segmentSize: disk.segmentSize(), lock: lock}
	if version == 1 {
		err = w.migrate(cluster)
	}
	var state *State
	if err == nil {
		state, err = w.load()
	}
	if err != nil {
		return nil, nil, errors.Join(err, w.Close())
	}
	state.Cluster = cluster
	return w, state, nil
}

// load reads the log, checks it against invariant 2, and makes w go on behind it.
func (w *WAL) load() (*State, error) {
	var r replay
	torn, err := w.readLog(&r)
	if err != nil {
		return nil, err
	}
	if r.identity == nil || r.hard == nil {
		return nil, &CorruptError{What: "log", Err: errors.New("its first segment is missing")}
	}
	w.identity, w.hard, w.mark = r.identity, r.hard, r.mark
	state := &State{Identity: r.identity, HardState: r.hard, Snapshot: r.mark, Entries: r.entries, Torn: torn}
	if err := state.check(); err != nil {
		return nil, err
	}
	if err := w.dropTemp(); err != nil {
		return nil, err
	}
	w.active, err = w.fs.OpenFixed(filepath.Join(w.dir, w.segments[len(w.segments)-1].name()))
	if err != nil {
		return nil, fmt.Errorf("open log segment: %w", err)
	}
	if torn {
		err = w.wipe()
	}
	return state, err
}

// dropTemp removes what was not complete when the process ended.
func (w *WAL) dropTemp() error {
	names, err := w.fs.ReadDir(w.dir)
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	for _, name := range names {
		if vfs.IsTemp(name) || name == databaseFile {
			if err := w.fs.Remove(filepath.Join(w.dir, name)); err != nil {
				return fmt.Errorf("clear data directory: %w", err)
			}
		}
	}
	return nil
}

// listSegments returns the numbers of the segments in a directory, in order.
func listSegments(fsys vfs.FS, dir string) ([]uint64, error) {
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read data directory: %w", err)
	}
	var numbers []uint64
	for _, name := range names {
		if number, ok := segmentNumber(name); ok {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}

// readLog replays all segments. torn says that the last write of the log must be wiped.
func (w *WAL) readLog(r *replay) (torn bool, err error) {
	numbers, err := listSegments(w.fs, w.dir)
	if err != nil {
		return false, err
	}
	if len(numbers) == 0 {
		return false, &CorruptError{What: "log", Err: errors.New("it is missing")}
	}
	w.segments, w.number = nil, 0
	for i, number := range numbers {
		if i > 0 && number != numbers[i-1]+1 {
			return false, &CorruptError{What: "log segment", Index: numbers[i-1] + 1, Err: errors.New("it is missing")}
		}
		if torn, err = w.readFrames(r, number, i == len(numbers)-1); err != nil {
			return false, err
		}
	}
	return torn, nil
}

// readFrames replays one segment and leaves w.offset behind its last frame.
func (w *WAL) readFrames(r *replay, number uint64, last bool) (torn bool, err error) {
	s, b, err := readSegment(w.fs, w.dir, number)
	if err != nil {
		return false, &CorruptError{What: "log segment", Index: number, Err: err}
	}
	if w.number == 0 {
		w.number = s.first - 1
	}
	if s.first != w.number+1 {
		return false, &CorruptError{What: "log segment", Index: number, Err: errFrameOrder}
	}
	for w.offset = sectorSize; len(b) > 0; {
		f, torn, err := decodeFrame(b, w.ring, w.number+1)
		if torn && last {
			w.segments = append(w.segments, s)
			return true, nil
		}
		if err == nil && f.size == 0 {
			break
		}
		if err == nil {
			err = r.take(f.records)
		}
		if err != nil {
			return false, damagedFrame(r, s, f, err)
		}
		w.number = f.number
		w.offset += f.size
		b = b[f.size:]
		if n := len(r.entries); n > 0 {
			s.last = max(s.last, r.entries[n-1].GetIndex())
		}
	}
	w.segments = append(w.segments, s)
	return false, nil
}

// damagedFrame names what a damaged frame held, as far as that is known.
func damagedFrame(r *replay, s segment, f frame, err error) error {
	var corrupt *CorruptError
	switch {
	case errors.As(err, &corrupt):
		return corrupt
	case f.index > 0:
		return &CorruptError{What: "log entry", Index: f.index, Err: err}
	case len(r.entries) > 0:
		return &CorruptError{What: "log after entry", Index: r.entries[len(r.entries)-1].GetIndex(), Err: err}
	}
	return &CorruptError{What: "log segment", Index: s.number, Err: err}
}

// wipe fills the active segment with zeros again from the end of the log on.
func (w *WAL) wipe() error {
	rest := w.segments[len(w.segments)-1].size - w.offset
	for at := 0; at < rest; at += len(zeros) {
		if _, err := w.active.WriteAt(zeros[:min(len(zeros), rest-at)], int64(w.offset+at)); err != nil {
			return fmt.Errorf("wipe a torn write: %w", err)
		}
	}
	if err := w.active.Sync(); err != nil {
		return fmt.Errorf("wipe a torn write: %w", err)
	}
	return nil
}

// check compares the parts of a state with each other.
func (s *State) check() error {
	start := s.Snapshot.GetIndex()
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
