package backup

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
)

const (
	magic = "SKPBAK1\n"
	// magicStem is what the magic of all versions begins with.
	magicStem = "SKPBAK"
	// maxHeader is far above what a header needs.
	maxHeader = 4 << 10
	// HeadSize is how much of a file Unlock reads at most.
	HeadSize = 64 << 10
	// partSize is where a part ends.
	partSize = 1 << 20
	// maxPart has room for the largest object and what is around it.
	maxPart = store.MaxObjectSize + 64<<10
	// maxState bounds all parts together: the state is in memory as a whole, on every manager.
	maxState = 1 << 30
	// lastPart marks the last part in its number.
	lastPart = 1 << 63
	// lengthSize is the size of the length before a header or an envelope.
	lengthSize = 4
)

// place is where an envelope of a backup belongs.
func place(kind seal.Kind, h *api.BackupHeader, part uint64) seal.Place {
	return seal.Place{Kind: kind, Cluster: h.GetClusterId(), Index: h.GetIndex(), Part: part}
}

// writeEnvelope seals content and writes the envelope after its length.
func writeEnvelope(w io.Writer, k seal.Key, p seal.Place, content []byte) error {
	b, err := k.Seal(make([]byte, lengthSize, lengthSize+len(content)+seal.Overhead), p, content)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-lengthSize))
	_, err = w.Write(b)
	return err
}

// readSized reads bytes after their length, which is from least to most. An end of the file is ErrDamaged.
func readSized(r io.Reader, least, most int) ([]byte, error) {
	var length [lengthSize]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return nil, cut(err)
	}
	n := binary.BigEndian.Uint32(length[:])
	if uint64(n) < uint64(least) || uint64(n) > uint64(most) {
		return nil, fmt.Errorf("%d bytes: %w", n, ErrDamaged)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, cut(err)
	}
	return b, nil
}

// cut returns ErrDamaged for the end of a file, and other errors as they are.
func cut(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the file ends too early: %w", ErrDamaged)
	}
	return err
}

// shallow returns a copy of a state that shares all that is below it.
func shallow(state *api.StoreSnapshot) *api.StoreSnapshot {
	out := new(api.StoreSnapshot)
	state.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		out.ProtoReflect().Set(field, value)
		return true
	})
	return out
}

// count returns how many objects of each kind a state has.
func count(state *api.StoreSnapshot) []*api.BackupCount {
	numbers := map[object.Kind]uint64{}
	for _, stored := range state.GetObjects() {
		numbers[object.KindOf(object.Unwrap(stored))]++
	}
	var counts []*api.BackupCount
	for _, kind := range object.Kinds() {
		counts = append(counts, &api.BackupCount{Kind: uint32(kind), Objects: numbers[kind]})
	}
	return counts
}
