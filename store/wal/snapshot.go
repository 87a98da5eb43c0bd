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

// fromBytes is for WriteSnapshot, when the data are in memory.
func fromBytes(data []byte) func(io.Writer) error {
	return func(to io.Writer) error {
		_, err := to.Write(data)
		return err
	}
}

// WriteSnapshot makes a snapshot durable beside the log, whose data write produces bit by bit. It does not count until Compact
// or Install marks it.
func (w *WAL) WriteSnapshot(meta *raftpb.SnapshotMetadata, write func(io.Writer) error) error {
	path := filepath.Join(w.dir, snapshotName(meta))
	return vfs.WriteStream(w.fs, path, filePerm, func(to io.Writer) error { return encodeSnapshot(to, w.ring, meta, write) })
}

func encodeSnapshot(to io.Writer, ring *seal.Ring, meta *raftpb.SnapshotMetadata, write func(io.Writer) error) error {
	if _, err := io.WriteString(to, snapshotMagic); err != nil {
		return err
	}
	conf, err := proto.Marshal(meta.GetConfState())
	if err != nil {
		return fmt.Errorf("encode membership: %w", err)
	}
	parts := &partWriter{to: to, ring: ring, meta: meta}
	if err := parts.put(conf, false); err != nil {
		return err
	}
	if err := write(parts); err != nil {
		return err
	}
	return parts.put(parts.part, true)
}

// partWriter seals what is written to it in parts. The last one is kept back, because it is marked as such.
type partWriter struct {
	to     io.Writer
	ring   *seal.Ring
	meta   *raftpb.SnapshotMetadata
	number uint64 // of the next part
	part   []byte
	sealed []byte
	total  int
}

// Write implements io.Writer.
func (p *partWriter) Write(b []byte) (int, error) {
	if p.total += len(b); p.total > MaxSnapshot {
		return 0, fmt.Errorf("snapshot of more than %d bytes: %w", MaxSnapshot, vfs.ErrTooLarge)
	}
	for rest := b; len(rest) > 0; {
		if len(p.part) == partSize {
			if err := p.put(p.part, false); err != nil {
				return 0, err
			}
			p.part = p.part[:0]
		}
		n := min(len(rest), partSize-len(p.part))
		p.part, rest = append(p.part, rest[:n]...), rest[n:]
	}
	return len(b), nil
}

func (p *partWriter) put(part []byte, last bool) error {
	sealed, err := p.ring.Seal(append(p.sealed[:0], 0, 0, 0, 0), snapshotPlace(p.meta, p.number, last), part)
	if err != nil {
		return fmt.Errorf("seal snapshot: %w", err)
	}
	binary.BigEndian.PutUint32(sealed, uint32(len(sealed)-4))
	p.sealed = sealed
	p.number++
	_, err = p.to.Write(sealed)
	return err
}

// SnapshotReader reads the data of a snapshot, and returns a *CorruptError where they are not what was written. At io.EOF all of
// it was authentic. Close it.
type SnapshotReader struct {
	// Meta describes the snapshot, its membership included.
	Meta *raftpb.SnapshotMetadata

	from   io.ReadCloser
	ring   *seal.Ring
	number uint64 // of the next part
	part   []byte // what is left of the present one
	last   bool   // it is the last one
	total  int
	err    error
}

// OpenSnapshot returns a reader for a snapshot that WriteSnapshot wrote, or a *CorruptError.
func (w *WAL) OpenSnapshot(index, term uint64) (*SnapshotReader, error) {
	meta := &raftpb.SnapshotMetadata{Index: &index, Term: &term, ConfState: &raftpb.ConfState{}}
	f, err := w.fs.Open(filepath.Join(w.dir, snapshotName(meta)))
	if err != nil {
		return nil, &CorruptError{What: "snapshot", Index: index, Err: err}
	}
	r, err := newSnapshotReader(f, w.ring, meta)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

func newSnapshotReader(from io.ReadCloser, ring *seal.Ring, meta *raftpb.SnapshotMetadata) (*SnapshotReader, error) {
	r := &SnapshotReader{Meta: meta, from: from, ring: ring}
	magic := make([]byte, len(snapshotMagic))
	if _, err := io.ReadFull(from, magic); err != nil || string(magic) != snapshotMagic {
		return nil, r.corrupt(fmt.Errorf("it does not start with %s", snapshotMagic))
	}
	if err := r.next(); err != nil {
		return nil, r.corrupt(err)
	}
	if err := proto.Unmarshal(r.part, meta.GetConfState()); err != nil || r.last {
		return nil, r.corrupt(fmt.Errorf("membership: %w", errors.Join(err, errSnapshotEnd)))
	}
	r.part = nil
	return r, nil
}

// Close closes the file.
func (r *SnapshotReader) Close() error { return r.from.Close() }

func (r *SnapshotReader) corrupt(err error) error {
	return &CorruptError{What: "snapshot", Index: r.Meta.GetIndex(), Err: err}
}

// Read implements io.Reader.
func (r *SnapshotReader) Read(b []byte) (int, error) {
	for r.err == nil && len(r.part) == 0 {
		if r.last {
			r.err = r.end()
			continue
		}
		if err := r.next(); err != nil {
			r.err = r.corrupt(fmt.Errorf("part %d: %w", r.number, err))
		}
		if r.total += len(r.part); r.total > MaxSnapshot {
			r.err = r.corrupt(vfs.ErrTooLarge)
		}
	}
	if r.err != nil {
		return 0, r.err
	}
	n := copy(b, r.part)
	r.part = r.part[n:]
	return n, nil
}

// end makes sure that nothing follows the last part.
func (r *SnapshotReader) end() error {
	if n, err := r.from.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return r.corrupt(errSnapshotEnd)
	}
	return io.EOF
}

var errSnapshotEnd = errors.New("it has no end, or goes on after it")

// next reads a part.
func (r *SnapshotReader) next() error {
	var length [4]byte
	if _, err := io.ReadFull(r.from, length[:]); err != nil {
		return errSnapshotEnd
	}
	n := binary.BigEndian.Uint32(length[:])
	if n < seal.Overhead || n > partSize+seal.Overhead {
		return fmt.Errorf("length %d: %w", n, seal.ErrOpen)
	}
	envelope := make([]byte, n)
	if _, err := io.ReadFull(r.from, envelope); err != nil {
		return errSnapshotEnd
	}
	part, err := r.ring.Open(snapshotPlace(r.Meta, r.number, false), envelope)
	if err != nil {
		part, err = r.ring.Open(snapshotPlace(r.Meta, r.number, true), envelope)
		r.last = true
	}
	r.part = part
	r.number++
	return err
}

// ReadSnapshot returns the data of a snapshot.
func (w *WAL) ReadSnapshot(index, term uint64) ([]byte, error) {
	r, err := w.OpenSnapshot(index, term)
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(r)
	return data, errors.Join(err, r.Close())
}
