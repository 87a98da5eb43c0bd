package store

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/skep-io/skep/store/raftcore"
	"github.com/skep-io/skep/store/wal"
)

// storage is what raft reads of the log: the entries, and what there is of a snapshot beside its data.
type storage struct {
	*raft.MemoryStorage

	// Owned by the loop, which is also where raft asks for snapshots.

	oldest Index // a snapshot before this one does not know all members, and those it does not know ignore it
	wanted bool  // raft asked for a snapshot and there was none new enough
}

// newStorage returns the storage of a state, whose snapshot meta describes, or nil.
func newStorage(state *wal.State, meta *raftpb.SnapshotMetadata) (*storage, error) {
	s := &storage{MemoryStorage: raft.NewMemoryStorage()}
	if meta != nil {
		if err := s.ApplySnapshot(&raftpb.Snapshot{Metadata: meta}); err != nil {
			return nil, fmt.Errorf("load snapshot: %w", err)
		}
		// What is in a snapshot is committed, although the commit index on disk may be older, see mustSave.
		if start := meta.GetIndex(); state.HardState.GetCommit() < start {
			state.HardState.Commit = &start
		}
	}
	if err := s.SetHardState(state.HardState); err != nil {
		return nil, fmt.Errorf("load hard state: %w", err)
	}
	if err := s.Append(state.Entries); err != nil {
		return nil, fmt.Errorf("load entries: %w", err)
	}
	return s, nil
}

// Snapshot returns the last snapshot, for a follower; its data the transport gets from the disk. When it is too old, the loop makes a
// new one, and raft asks again.
func (s *storage) Snapshot() (*raftpb.Snapshot, error) {
	snapshot, err := s.MemoryStorage.Snapshot()
	if err != nil {
		return nil, err
	}
	if raft.IsEmptySnap(snapshot) || snapshot.GetMetadata().GetIndex() < s.oldest {
		s.wanted = true
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &raftpb.Snapshot{Metadata: snapshot.GetMetadata()}, nil
}

// job is something for the disk: append, compact or do is set.
type job struct {
	append  *raftcore.Append
	state   *built // the content of append.Snapshot, or nil
	compact *raftpb.SnapshotMetadata
	do      func() error // something else
	then    func() error // follows in the loop, or nil
	behind  bool         // messages left that need not wait for it
}

// write makes jobs durable, in order, those that wait together in one step. It owns all changes of the log on disk.
func (c *cluster) write(ctx context.Context) error {
	for {
		var jobs []job
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case jobs = <-c.jobs:
		}
		if jobs[0].behind {
			runtime.Gosched() // a sync holds the processor, while those that send may wait for one
		}
		if err := c.writeJobs(jobs); err != nil {
			return fmt.Errorf("this manager stops, because its disk does not keep the log: %w", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case c.written <- jobs:
		}
		if !c.wal.Prepared() {
			select {
			case c.prepares <- struct{}{}:
			default: // it is at work
			}
		}
	}
}

// prepareRetry is the pause after a segment of the log could not be prepared.
const prepareRetry = 10 * time.Second

// prepare keeps a segment of the log ready. When it can't, the log needs more time for its next one, or fails for the same reason.
func (c *cluster) prepare(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.prepares:
		}
		err := c.wal.Prepare()
		if err == nil {
			continue
		}
		c.logger.Warn("the disk has no place for the log to grow", "error", err)
		if err := wait(ctx, nil, prepareRetry); err != nil {
			return err
		}
	}
}

func (c *cluster) writeJobs(jobs []job) error {
	var batches []wal.Batch
	flush := func() error {
		if len(batches) == 0 {
			return nil
		}
		if err := c.wal.Save(batches...); err != nil {
			return err
		}
		for _, b := range batches {
			if err := c.storage.Append(b.Entries); err != nil {
				return err
			}
		}
		batches = nil
		return nil
	}
	for _, j := range jobs {
		var err error
		switch {
		case j.do != nil:
			if err = flush(); err == nil {
				err = j.do()
			}
		case j.compact != nil:
			if err = flush(); err == nil {
				err = c.compactLog(j.compact)
			}
		case j.append.Snapshot != nil:
			if err = flush(); err == nil {
				err = c.install(j.append)
			}
		case c.mustSave(j.append):
			batches = append(batches, wal.Batch{HardState: c.saved, Entries: j.append.Entries})
		}
		if err != nil {
			return err
		}
	}
	return flush()
}

// mustSave reports whether an append has to become durable. A commit index alone need not: it goes to disk with the next
// entries, and after a crash the group finds it out again. That halves the disk's work.
func (c *cluster) mustSave(a *raftcore.Append) bool {
	if raft.IsEmptyHardState(a.HardState) {
		return len(a.Entries) > 0
	}
	before := c.saved
	c.saved = a.HardState
	return len(a.Entries) > 0 || before.GetTerm() != a.HardState.GetTerm() || before.GetVote() != a.HardState.GetVote()
}

// install replaces the log by a snapshot from the leader, and whatever entries came with it.
func (c *cluster) install(a *raftcore.Append) error {
	if !raft.IsEmptyHardState(a.HardState) {
		c.saved = a.HardState
	}
	if err := c.wal.Install(a.Snapshot, c.saved); err != nil {
		return err
	}
	if err := c.storage.ApplySnapshot(&raftpb.Snapshot{Metadata: a.Snapshot.GetMetadata()}); err != nil {
		return err
	}
	if len(a.Entries) == 0 {
		return nil
	}
	if err := c.wal.Save(wal.Batch{Entries: a.Entries}); err != nil {
		return err
	}
	return c.storage.Append(a.Entries)
}

// compactLog makes an own snapshot the start of the log, unless the leader sent a newer one meanwhile.
func (c *cluster) compactLog(meta *raftpb.SnapshotMetadata) error {
	current, err := c.storage.MemoryStorage.Snapshot()
	if err != nil {
		return err
	}
	if meta.GetIndex() <= current.GetMetadata().GetIndex() {
		return nil
	}
	keep, err := c.storage.keepFrom(meta.GetIndex())
	if err != nil {
		return err
	}
	if err := c.wal.Compact(meta, keep); err != nil {
		return err
	}
	if _, err := c.storage.CreateSnapshot(meta.GetIndex(), meta.GetConfState(), nil); err != nil {
		return err
	}
	first, err := c.storage.FirstIndex()
	if err != nil || keep < first {
		return err
	}
	return c.storage.Compact(keep)
}

// keepFrom returns the last index that followers need not have from the log, once there is a snapshot at an index: some entries
// and bytes before it.
func (s *storage) keepFrom(index Index) (Index, error) {
	first, err := s.FirstIndex()
	if err != nil {
		return 0, err
	}
	if keep := index - min(keepEntries, index); first <= keep {
		first = keep + 1
	}
	if first > index {
		return index, nil
	}
	entries, err := s.Entries(first, index+1, math.MaxUint64)
	if err != nil {
		return 0, fmt.Errorf("read log: %w", err)
	}
	bytes := 0
	for i, e := range slices.Backward(entries) {
		if bytes += len(e.GetData()); bytes > keepBytes {
			return first + uint64(i), nil
		}
	}
	return first - 1, nil
}

// capture is a state to make a snapshot of, or without one, a snapshot to seal again.
type capture struct {
	state *frozen // or nil
	meta  *raftpb.SnapshotMetadata
}

// capture writes snapshots, beside the loop because they may be large.
func (c *cluster) capture(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case taken := <-c.captures:
			if err := c.writeCapture(taken); err != nil {
				return err
			}
			if err := c.call(ctx, func() error { return c.captured(taken) }); err != nil {
				return err
			}
		}
	}
}

func (c *cluster) writeCapture(taken capture) error {
	if taken.state == nil {
		return c.wal.ResealSnapshot(taken.meta.GetIndex(), taken.meta.GetTerm())
	}
	if err := c.wal.WriteSnapshot(taken.meta, taken.state.write); err != nil {
		return fmt.Errorf("write snapshot %d: %w", taken.meta.GetIndex(), err)
	}
	return nil
}

// captured makes a written snapshot the start of the log.
func (c *cluster) captured(taken capture) error {
	c.capturing = false
	if taken.state == nil {
		c.finishRotation()
		return nil
	}
	c.queue = append(c.queue, job{compact: taken.meta})
	c.startRotation()
	return nil
}

// raftLogger passes on what the library says, most of it for debugging. Panics are caught by raftcore.
type raftLogger struct{ to *slog.Logger }

func (l raftLogger) Debug(v ...any)              { l.to.Debug("raft", "text", fmt.Sprint(v...)) }
func (l raftLogger) Debugf(f string, v ...any)   { l.to.Debug("raft", "text", fmt.Sprintf(f, v...)) }
func (l raftLogger) Info(v ...any)               { l.to.Debug("raft", "text", fmt.Sprint(v...)) }
func (l raftLogger) Infof(f string, v ...any)    { l.to.Debug("raft", "text", fmt.Sprintf(f, v...)) }
func (l raftLogger) Warning(v ...any)            { l.to.Debug("raft", "text", fmt.Sprint(v...)) }
func (l raftLogger) Warningf(f string, v ...any) { l.to.Debug("raft", "text", fmt.Sprintf(f, v...)) }
func (l raftLogger) Error(v ...any)              { l.to.Warn("raft", "text", fmt.Sprint(v...)) }
func (l raftLogger) Errorf(f string, v ...any)   { l.to.Warn("raft", "text", fmt.Sprintf(f, v...)) }
func (l raftLogger) Fatal(v ...any)              { panic(fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(f string, v ...any)   { panic(fmt.Sprintf(f, v...)) }
func (l raftLogger) Panic(v ...any)              { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panicf(f string, v ...any)   { panic(fmt.Sprintf(f, v...)) }
