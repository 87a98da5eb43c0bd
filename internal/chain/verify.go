package chain

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
)

// BrokenError is returned when entries do not form a chain.
type BrokenError struct {
	// Sequence is the number of the entry where it breaks.
	Sequence uint64
	Reason   string
}

// Error names the entry.
func (e *BrokenError) Error() string {
	return fmt.Sprintf("the audit log is broken at entry %d: %s", e.Sequence, e.Reason)
}

// Verifier checks a chain, entry by entry. Make one with NewVerifier.
type Verifier struct {
	sequence uint64
	hash     []byte
	known    map[uint64][]byte // hashes that must be passed, by sequence number
}

// NewVerifier returns a verifier that begins at a place in the log, which is trusted, unless it is the beginning: that is known.
func NewVerifier(clusterID string, anchor *api.AuditHead) (*Verifier, error) {
	v := &Verifier{sequence: anchor.GetSequence(), hash: anchor.GetHash(), known: map[uint64][]byte{}}
	switch {
	case v.sequence == 0 && !bytes.Equal(v.hash, Genesis(clusterID)):
		return nil, &BrokenError{Sequence: 1, Reason: "the log does not begin as that of cluster " + clusterID}
	case len(v.hash) != HashSize:
		return nil, &BrokenError{Sequence: v.sequence, Reason: fmt.Sprintf("its hash has %d bytes, not %d", len(v.hash), HashSize)}
	}
	return v, nil
}

// Expect makes the chain lead through a head, such as one that somebody wrote down. One before the anchor can't be checked.
func (v *Verifier) Expect(head *api.AuditHead) error {
	if head.GetSequence() < v.sequence {
		return fmt.Errorf("entry %d can't be checked: the log given begins after entry %d", head.GetSequence(), v.sequence)
	}
	if head.GetSequence() == v.sequence {
		return v.same(head.GetHash())
	}
	if before := v.known[head.GetSequence()]; before != nil && !bytes.Equal(before, head.GetHash()) {
		return &BrokenError{Sequence: head.GetSequence(), Reason: "it should have two different hashes"}
	}
	v.known[head.GetSequence()] = head.GetHash()
	return nil
}

func (v *Verifier) same(hash []byte) error {
	if !bytes.Equal(v.hash, hash) {
		return &BrokenError{Sequence: v.sequence, Reason: fmt.Sprintf("its hash is %x, and should be %x", v.hash, hash)}
	}
	return nil
}

// Add checks the next entry.
func (v *Verifier) Add(e *api.AuditEntry) error {
	next := v.sequence + 1
	switch got := e.GetSequence(); {
	case got > next:
		return &BrokenError{Sequence: next, Reason: fmt.Sprintf("it is missing: entry %d follows %d", got, v.sequence)}
	case got < next:
		return &BrokenError{Sequence: got, Reason: fmt.Sprintf("it comes a second time, or too late: it follows %d", v.sequence)}
	}
	event := Encode(e.GetEvent())
	if size := proto.Size(e.GetEvent()); size != len(event) {
		return &BrokenError{Sequence: next, Reason: "it has a text that is too long for an entry"}
	}
	hash := Next(v.hash, next, e.GetTime().AsTime().UnixNano(), event)
	if !bytes.Equal(hash, e.GetHash()) {
		return &BrokenError{Sequence: next, Reason: "it is not what was written, or what comes before it is not: its hash does not fit"}
	}
	v.sequence, v.hash = next, hash
	if want := v.known[next]; want != nil {
		delete(v.known, next)
		return v.same(want)
	}
	return nil
}

// Head is the place after the last entry that was added.
func (v *Verifier) Head() *api.AuditHead { return &api.AuditHead{Sequence: v.sequence, Hash: v.hash} }

// Finish returns the place after the last entry, or an error when the chain ended before an expected head.
func (v *Verifier) Finish() (*api.AuditHead, error) {
	for sequence := range v.known {
		return nil, &BrokenError{Sequence: v.sequence + 1, Reason: fmt.Sprintf("the log ends before it, and should reach entry %d", sequence)}
	}
	return v.Head(), nil
}
