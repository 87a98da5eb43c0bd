package wal

import (
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// Kinds of records. Part of what is on disk.
const (
	recordEntry     = 1 // an entry, which ends the log: what was at its index and after it is gone
	recordHardState = 2
	recordMark      = 3 // which snapshot counts
	recordReset     = 4 // no entries: the log goes on from the mark
	recordIdentity  = 5
	recordRestated  = 6 // an entry again, when its segment is to go; those after it stay
)

var errRecord = errors.New("a record of unknown form")

// entryHead is the size of an entry's record without its data: kind, index, term, type, length.
const entryHead = 1 + 8 + 8 + 1 + 4

func appendEntry(b []byte, kind byte, e *raftpb.Entry) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint64(b, e.GetIndex())
	b = binary.BigEndian.AppendUint64(b, e.GetTerm())
	b = append(b, byte(e.GetType()))
	b = binary.BigEndian.AppendUint32(b, uint32(len(e.GetData())))
	return append(b, e.GetData()...)
}

func appendHardState(b []byte, h *raftpb.HardState) []byte {
	b = append(b, recordHardState)
	b = binary.BigEndian.AppendUint64(b, h.GetTerm())
	b = binary.BigEndian.AppendUint64(b, h.GetVote())
	return binary.BigEndian.AppendUint64(b, h.GetCommit())
}

func appendMark(b []byte, m *raftpb.SnapshotMetadata) []byte {
	b = append(b, recordMark)
	b = binary.BigEndian.AppendUint64(b, m.GetIndex())
	return binary.BigEndian.AppendUint64(b, m.GetTerm())
}

func appendIdentity(b []byte, identity *api.JoinResponse) ([]byte, error) {
	encoded, err := proto.Marshal(identity)
	if err != nil {
		return nil, fmt.Errorf("encode identity: %w", err)
	}
	b = append(b, recordIdentity)
	b = binary.BigEndian.AppendUint32(b, uint32(len(encoded)))
	return append(b, encoded...), nil
}

// replay is what the records so far say.
type replay struct {
	identity *api.JoinResponse // or nil
	hard     *raftpb.HardState
	mark     *raftpb.SnapshotMetadata // or nil
	entries  []*raftpb.Entry
}

// take reads the records of a frame.
func (r *replay) take(b []byte) error {
	for len(b) > 0 {
		n, err := r.record(b)
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// record reads the first record of b, and returns its size.
func (r *replay) record(b []byte) (size int, err error) {
	u64 := func(at int) *uint64 { return new(binary.BigEndian.Uint64(b[at:])) }
	switch kind := b[0]; {
	case (kind == recordEntry || kind == recordRestated) && len(b) >= entryHead:
		return r.entry(b, kind)
	case kind == recordHardState && len(b) >= 1+24:
		r.hard = &raftpb.HardState{Term: u64(1), Vote: u64(9), Commit: u64(17)}
		return 1 + 24, nil
	case kind == recordMark && len(b) >= 1+16:
		r.mark = &raftpb.SnapshotMetadata{Index: u64(1), Term: u64(9)}
		return 1 + 16, nil
	case kind == recordReset:
		r.entries = nil
		return 1, nil
	case kind == recordIdentity && len(b) >= 1+4:
		n := binary.BigEndian.Uint32(b[1:])
		if uint64(n) > uint64(len(b)-5) {
			return 0, errRecord
		}
		r.identity = &api.JoinResponse{}
		return 5 + int(n), proto.Unmarshal(b[5:5+n], r.identity)
	}
	return 0, errRecord
}

func (r *replay) entry(b []byte, kind byte) (size int, err error) {
	index, term := binary.BigEndian.Uint64(b[1:]), binary.BigEndian.Uint64(b[9:])
	n := binary.BigEndian.Uint32(b[18:])
	if uint64(n) > uint64(len(b)-entryHead) || b[17] > byte(raftpb.EntryConfChangeV2) || index == 0 {
		return 0, errRecord
	}
	e := &raftpb.Entry{Index: &index, Term: &term, Type: raftpb.EntryType(b[17]).Enum()}
	if n > 0 {
		e.Data = b[entryHead : entryHead+n : entryHead+n]
	}
	return entryHead + int(n), r.put(e, kind == recordEntry)
}

// put makes e an entry of the log. Last says that those after it are gone.
func (r *replay) put(e *raftpb.Entry, last bool) error {
	first, next := e.GetIndex(), e.GetIndex()
	if len(r.entries) > 0 {
		first = r.entries[0].GetIndex()
		next = first + uint64(len(r.entries))
	}
	switch at := e.GetIndex() - first; {
	case e.GetIndex() > next:
		return &CorruptError{What: "log entry", Index: next, Err: fmt.Errorf("it is missing, the next one is %d", e.GetIndex())}
	case e.GetIndex() == next:
		r.entries = append(r.entries, e)
	case e.GetIndex() < first: // of those written again, all follow
		r.entries = append(r.entries[:0], e)
	case last:
		r.entries = append(r.entries[:at], e)
	default:
		r.entries[at] = e
	}
	return nil
}
