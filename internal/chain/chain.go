package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
)

// HashSize is the size of a hash in bytes.
const HashSize = sha256.Size

// What each kind of hash begins with, so that none can be taken for another.
const (
	logDomain   = "skep audit log 1\x00"
	entryDomain = "skep audit entry 1\x00"
)

// Genesis returns the hash before the first entry of a cluster's log.
func Genesis(clusterID string) []byte {
	sum := sha256.Sum256([]byte(logDomain + clusterID))
	return sum[:]
}

// Next returns the hash of the entry after one with the hash previous. at is in nanoseconds since 1970, and event is encoded.
func Next(previous []byte, sequence uint64, at int64, event []byte) []byte {
	h := sha256.New()
	h.Write([]byte(entryDomain))
	h.Write(previous)
	var numbers [16]byte
	binary.BigEndian.PutUint64(numbers[:8], sequence)
	binary.BigEndian.PutUint64(numbers[8:], uint64(at))
	h.Write(numbers[:])
	h.Write(event)
	return h.Sum(nil)
}

// Append adds an entry to the encoded entries of a segment.
func Append(entries []byte, at int64, event []byte) []byte {
	entries = binary.BigEndian.AppendUint64(entries, uint64(at))
	entries = binary.AppendUvarint(entries, uint64(len(event)))
	return append(entries, event...)
}

// AppendedSize is the most bytes that Append adds for an event.
func AppendedSize(event []byte) int { return 8 + binary.MaxVarintLen32 + len(event) }

// Link is an entry as it is in a segment. Its bytes are the segment's.
type Link struct {
	Sequence uint64
	// At is in nanoseconds since 1970.
	At    int64
	Event []byte
	Hash  []byte
}

// Entry decodes a link.
func (l Link) Entry() (*api.AuditEntry, error) {
	event, err := Decode(l.Event)
	if err != nil {
		return nil, fmt.Errorf("audit entry %d: %w", l.Sequence, err)
	}
	return &api.AuditEntry{Sequence: l.Sequence, Time: timestamppb.New(time.Unix(0, l.At)), Event: event, Hash: l.Hash}, nil
}

// Links goes through the entries of a segment and hashes them. An error, ErrEncoding, is the last it yields.
func Links(s *api.AuditSegment) iter.Seq2[Link, error] {
	return func(yield func(Link, error) bool) {
		hash, rest := s.GetPrevious(), s.GetEntries()
		for sequence := s.GetFirst(); len(rest) > 0; sequence++ {
			if len(rest) < 8 {
				yield(Link{}, fmt.Errorf("segment from %d: %w", s.GetFirst(), ErrEncoding))
				return
			}
			at := int64(binary.BigEndian.Uint64(rest))
			size, n := binary.Uvarint(rest[8:])
			if n <= 0 || size > uint64(len(rest)-8-n) {
				yield(Link{}, fmt.Errorf("segment from %d: %w", s.GetFirst(), ErrEncoding))
				return
			}
			event := rest[8+n:][:size]
			rest = rest[8+n+int(size):]
			hash = Next(hash, sequence, at, event)
			if !yield(Link{Sequence: sequence, At: at, Event: event, Hash: hash}, nil) {
				return
			}
		}
	}
}

// Head is the place after a segment's last entry.
func Head(s *api.AuditSegment) *api.AuditHead {
	return &api.AuditHead{Sequence: s.GetFirst() + s.GetCount() - 1, Hash: s.GetHead(), RecoveredAt: s.GetRecoveredAt()}
}

// Anchor is the place before a segment's first entry.
func Anchor(s *api.AuditSegment) *api.AuditHead {
	return &api.AuditHead{Sequence: s.GetFirst() - 1, Hash: s.GetPrevious()}
}

// CheckSegment recomputes the hashes of a segment.
func CheckSegment(s *api.AuditSegment) error {
	count, hash := uint64(0), s.GetPrevious()
	for link, err := range Links(s) {
		if err != nil {
			return err
		}
		if _, err := Decode(link.Event); err != nil {
			return fmt.Errorf("audit entry %d: %w", link.Sequence, err)
		}
		count, hash = count+1, link.Hash
	}
	if count != s.GetCount() || !bytes.Equal(hash, s.GetHead()) {
		return &BrokenError{Sequence: s.GetFirst() + count, Reason: "the segment that ends here does not lead to its head"}
	}
	return nil
}
