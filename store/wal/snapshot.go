package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

const (
	snapshotMagic  = "SKPSNAP1"
	snapshotPrefix = "snap-"
	// partSize is the most data in one part.
	partSize = 1 << 20
	// lastPart marks the last part in its number.
	lastPart = 1 << 63
	// MaxSnapshot bounds the data of a snapshot: the state is in memory as a whole, on every manager.
	MaxSnapshot = 1 << 30
)

func snapshotName(m *raftpb.SnapshotMetadata) string {
	return fmt.Sprintf("%s%016x-%016x", snapshotPrefix, m.GetIndex(), m.GetTerm())
}

func isSnapshot(name string) bool { return strings.HasPrefix(name, snapshotPrefix) }

func snapshotPlace(m *raftpb.SnapshotMetadata, part uint64, last bool) seal.Place {
	if last {
		part |= lastPart
	}
	return seal.Place{Kind: seal.KindSnapshot, Index: m.GetIndex(), Term: m.GetTerm(), Part: part}
}

// WriteSnapshot makes a snapshot durable beside the log. It does not count until Compact or Install marks it.
func (w *WAL) WriteSnapshot(s *raftpb.Snapshot) error {
	path := filepath.Join(w.dir, snapshotName(s.GetMetadata()))
	return vfs.WriteStream(w.fs, path, filePerm, func(to io.Writer) error { return encodeSnapshot(to, w.ring, s) })
}

func encodeSnapshot(to io.Writer, ring *seal.Ring, s *raftpb.Snapshot) error {
	if len(s.GetData()) > MaxSnapshot {
		return fmt.Errorf("snapshot of %d bytes: %w", len(s.GetData()), vfs.ErrTooLarge)
	}
	meta := s.GetMetadata()
	part, err := proto.Marshal(meta.GetConfState())
	if err != nil {
		return fmt.Errorf("encode membership: %w", err)
	}
	if _, err := io.WriteString(to, snapshotMagic); err != nil {
		return err
	}
	rest := s.GetData()
	for number := uint64(0); ; number++ {
		last := number > 0 && len(rest) == 0
		buffer := make([]byte, 4, 4+len(part)+seal.Overhead)
		buffer, err := ring.Seal(buffer, snapshotPlace(meta, number, last), part)
		if err != nil {
			return fmt.Errorf("seal snapshot: %w", err)
		}
		binary.BigEndian.PutUint32(buffer, uint32(len(buffer)-4))
		if _, err := to.Write(buffer); err != nil {
			return err
		}
		if last {
			return nil
		}
		n := min(len(rest), partSize)
		part, rest = rest[:n], rest[n:]
	}
}

// ReadSnapshot returns a snapshot that WriteSnapshot wrote, or a *CorruptError.
func (w *WAL) ReadSnapshot(index, term uint64) (*raftpb.Snapshot, error) {
	return readSnapshot(w.fs, w.dir, w.ring, &raftpb.SnapshotMetadata{Index: &index, Term: &term})
}

func readSnapshot(fsys vfs.FS, dir string, ring *seal.Ring, meta *raftpb.SnapshotMetadata) (*raftpb.Snapshot, error) {
	f, err := fsys.Open(filepath.Join(dir, snapshotName(meta)))
	if err != nil {
		return nil, &CorruptError{What: "snapshot", Index: meta.GetIndex(), Err: err}
	}
	defer f.Close()
	s, err := decodeSnapshot(f, ring, meta)
	if err != nil {
		return nil, &CorruptError{What: "snapshot", Index: meta.GetIndex(), Err: err}
	}
	return s, nil
}

var errSnapshotEnd = errors.New("it has no end, or goes on after it")

func decodeSnapshot(from io.Reader, ring *seal.Ring, meta *raftpb.SnapshotMetadata) (*raftpb.Snapshot, error) {
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(from, magic); err != nil || string(magic) != snapshotMagic {
		return nil, fmt.Errorf("it does not start with %s", snapshotMagic)
	}
	s := &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: meta.Index, Term: meta.Term, ConfState: &raftpb.ConfState{}}}
	for number := uint64(0); ; number++ {
		part, last, err := decodePart(from, ring, meta, number)
		if err != nil {
			return nil, fmt.Errorf("part %d: %w", number, err)
		}
		if number == 0 {
			if err := proto.Unmarshal(part, s.Metadata.ConfState); err != nil {
				return nil, fmt.Errorf("membership: %w", err)
			}
		} else {
			s.Data = append(s.Data, part...)
		}
		if len(s.Data) > MaxSnapshot {
			return nil, vfs.ErrTooLarge
		}
		if !last {
			continue
		}
		if n, err := from.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			return nil, errSnapshotEnd
		}
		return s, nil
	}
}

func decodePart(from io.Reader, ring *seal.Ring, meta *raftpb.SnapshotMetadata, number uint64) (part []byte, last bool, err error) {
	var length [4]byte
	if _, err := io.ReadFull(from, length[:]); err != nil {
		return nil, false, errSnapshotEnd
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < seal.Overhead || n > partSize+seal.Overhead {
		return nil, false, fmt.Errorf("length %d: %w", n, seal.ErrOpen)
	}
	envelope := make([]byte, n)
	if _, err := io.ReadFull(from, envelope); err != nil {
		return nil, false, errSnapshotEnd
	}
	if part, err = ring.Open(snapshotPlace(meta, number, false), envelope); err == nil {
		return part, false, nil
	}
	part, err = ring.Open(snapshotPlace(meta, number, true), envelope)
	return part, true, err
}
