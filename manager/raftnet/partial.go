package raftnet

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store/wal"
)

// partialLifetime is how long a part of a snapshot is kept for its sender to come back: longer than any election and restart.
const partialLifetime = 5 * time.Minute

// partial is the snapshot that this manager is being sent, as far as it came. There is one at a time: another one that begins takes
// its place, as the leader sends the newest. It is kept in memory, where the state goes anyway, so that nothing of it lies on the
// disk unsealed; wal.MaxSnapshot bounds it.
type partial struct {
	mu     sync.Mutex
	sender uint64 // the term of the leader that sends it
	index  uint64
	term   uint64
	digest []byte
	size   uint64
	data   []byte
	stream uint64      // the number of the stream that adds to it, or 0
	begun  uint64      // streams so far
	expiry *time.Timer // forgets it, or nil while a stream adds to it
}

// errReplaced ends a stream whose place another one took.
var errReplaced = fault.New(fault.Unavailable, "another stream sends a snapshot")

// begin makes a stream the one that adds to the partial, and returns its number and how many bytes are there already: some only of
// equal data. A leader of an earlier term does not disturb a later one.
func (p *partial) begin(m *raftpb.Message, digest []byte, size uint64) (stream, offset uint64, err error) {
	meta := m.GetSnapshot().GetMetadata()
	p.mu.Lock()
	defer p.mu.Unlock()
	if m.GetTerm() < p.sender {
		return 0, 0, errReplaced
	}
	if p.index != meta.GetIndex() || p.term != meta.GetTerm() || p.size != size || !bytes.Equal(p.digest, digest) {
		p.index, p.term, p.digest, p.size, p.data = meta.GetIndex(), meta.GetTerm(), digest, size, make([]byte, 0, size)
	}
	if p.expiry != nil {
		p.expiry.Stop()
		p.expiry = nil
	}
	p.begun++
	p.sender, p.stream = m.GetTerm(), p.begun
	return p.stream, uint64(len(p.data)), nil
}

// add appends data of a stream.
func (p *partial) add(stream uint64, data []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.stream != stream:
		return errReplaced
	case uint64(len(p.data)+len(data)) > p.size:
		size := p.size
		p.forget()
		return fault.New(fault.Invalid, "the snapshot has more than the %d bytes that were announced", size)
	}
	p.data = append(p.data, data...)
	return nil
}

// take returns the whole data, checked, and forgets them.
func (p *partial) take(stream uint64) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.stream != stream:
		return nil, errReplaced
	case uint64(len(p.data)) < p.size:
		return nil, fault.New(fault.Unavailable, "the snapshot ended after %d of %d bytes", len(p.data), p.size)
	}
	data, digest := p.data, p.digest
	p.forget()
	if sum := sha256.Sum256(data); !bytes.Equal(sum[:], digest) {
		return nil, fault.New(fault.Unavailable, "the snapshot is not what was announced")
	}
	return data, nil
}

// leave notes that a stream ended, and keeps what it sent for a while.
func (p *partial) leave(stream uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stream != stream {
		return
	}
	p.expiry = time.AfterFunc(partialLifetime, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.stream == stream {
			p.forget()
		}
	})
}

// drop forgets what was sent so far.
func (p *partial) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.forget()
}

// forget is drop. Called with mu.
func (p *partial) forget() {
	if p.expiry != nil {
		p.expiry.Stop()
	}
	p.sender, p.index, p.term, p.digest, p.size, p.data, p.stream, p.expiry = 0, 0, 0, nil, 0, nil, 0, nil
}

// ResumeSnapshot takes a snapshot, from where an earlier stream was cut, and delivers it.
func (s *Server) ResumeSnapshot(stream grpc.BidiStreamingServer[api.ResumeSnapshotRequest, api.ResumeSnapshotResponse]) error {
	m, err := s.resumeSnapshot(stream)
	if err == nil {
		err = s.deliver(stream.Context(), s.caller(stream.Context()), m)
	}
	return statusOf(err)
}

// resumeSnapshot receives the rest of a snapshot, and returns it whole.
func (s *Server) resumeSnapshot(stream grpc.BidiStreamingServer[api.ResumeSnapshotRequest, api.ResumeSnapshotResponse]) (*raftpb.Message, error) {
	if _, err := s.attached(); err != nil { // before a large transfer
		return nil, err
	}
	first, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	m, err := decodeSnapshot(first.GetMessage())
	switch {
	case err != nil:
		return nil, err
	case len(first.GetSha256()) != sha256.Size || len(first.GetData()) > 0:
		return nil, fault.New(fault.Invalid, "a snapshot begins with its digest, and without data")
	case first.GetSize() > wal.MaxSnapshot:
		return nil, tooLarge()
	}
	number, offset, err := s.partial.begin(m, first.GetSha256(), first.GetSize())
	if err != nil {
		return nil, err
	}
	defer s.partial.leave(number)
	if err := stream.Send(&api.ResumeSnapshotResponse{Offset: offset}); err != nil {
		return nil, err
	}
	for {
		next, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			m.Snapshot.Data, err = s.partial.take(number)
			return m, err
		}
		if err == nil {
			err = s.partial.add(number, next.GetData())
		}
		if err != nil {
			return nil, err
		}
	}
}

// decodeSnapshot decodes the message that a snapshot begins with.
func decodeSnapshot(encoded []byte) (*raftpb.Message, error) {
	m, err := decode(encoded)
	if err != nil {
		return nil, err
	}
	if m.GetType() != raftpb.MsgSnap || m.GetSnapshot() == nil {
		return nil, fault.New(fault.Invalid, "this is not a snapshot")
	}
	return m, nil
}

func tooLarge() error {
	return fault.New(fault.Exhausted, "the snapshot has more than %d bytes", wal.MaxSnapshot)
}
