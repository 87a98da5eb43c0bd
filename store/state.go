package store

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/object"
)

// The numbers of fields of api.StoreSnapshot, which is written and read object by object: as a whole, a large one would be in
// memory twice.
const (
	clusterField = 1
	indexField   = 2
	objectsField = 3
)

// frozen is the whole state after one log entry. Taking it costs next to nothing, and what it holds never changes.
type frozen struct {
	clusterID  string
	view       *view
	named, own []*DuplicateError
	members    []*api.Member
	removed    []uint64
}

func (m *machine) freeze() *frozen {
	f := &frozen{clusterID: m.clusterID, view: m.view()}
	f.named, f.own = m.requests.list()
	f.members, f.removed = m.members.save()
	return f
}

// each calls fn with all objects, ordered by kind and id.
func (f *frozen) each(fn func(*api.StoredObject) error) error {
	for _, kind := range object.Kinds() {
		for o := range f.view.tables.all(kind, ByIDPrefix("")) {
			if err := fn(object.Wrap(o)); err != nil {
				return err
			}
		}
	}
	return nil
}

// rest is what the state holds beside objects, its cluster and its index.
func (f *frozen) rest() *api.StoreSnapshot {
	s := &api.StoreSnapshot{NamedRequests: saveRequests(f.named), OwnRequests: saveRequests(f.own), Members: f.members, RemovedRaftIds: f.removed}
	for _, kind := range object.Kinds() {
		version := f.view.kindVersions[kind]
		if version == 0 && kind.Protocol() > 0 {
			continue // so that managers that do not know the kind hold the same state
		}
		s.KindVersions = append(s.KindVersions, &api.KindVersion{Kind: uint32(kind), Version: version})
	}
	return s
}

// message returns the state as one message, which shares its objects.
func (f *frozen) message() (*api.StoreSnapshot, error) {
	s := f.rest()
	s.ClusterId, s.Index = f.clusterID, f.view.index
	err := f.each(func(o *api.StoredObject) error {
		s.Objects = append(s.Objects, o)
		return nil
	})
	return s, err
}

// write encodes the state as an api.StoreSnapshot, object by object. Equal states have equal encodings.
func (f *frozen) write(w io.Writer) error {
	marshal := proto.MarshalOptions{Deterministic: true}
	sized := proto.MarshalOptions{Deterministic: true, UseCachedSize: true}
	head := protowire.AppendString(protowire.AppendTag(nil, clusterField, protowire.BytesType), f.clusterID)
	head = protowire.AppendVarint(protowire.AppendTag(head, indexField, protowire.VarintType), f.view.index)
	if _, err := w.Write(head); err != nil {
		return err
	}
	var encoded []byte
	err := f.each(func(o *api.StoredObject) (err error) {
		encoded = protowire.AppendTag(encoded[:0], objectsField, protowire.BytesType)
		encoded = protowire.AppendVarint(encoded, uint64(proto.Size(o)))
		if encoded, err = sized.MarshalAppend(encoded, o); err != nil {
			return fmt.Errorf("encode object: %w", err)
		}
		_, err = w.Write(encoded)
		return err
	})
	if err != nil {
		return err
	}
	rest, err := marshal.Marshal(f.rest())
	if err != nil {
		return fmt.Errorf("encode state: %w", err)
	}
	_, err = w.Write(rest)
	return err
}

// encode is write to memory.
func (f *frozen) encode() ([]byte, error) {
	var b bytes.Buffer
	err := f.write(&b)
	return b.Bytes(), err
}

// hash is equal on all managers that have applied the same index (I3).
func (f *frozen) hash() (Index, [sha256.Size]byte, error) {
	h := sha256.New()
	err := f.write(h)
	return f.view.index, [sha256.Size]byte(h.Sum(nil)), err
}

// builder puts a state together, object by object.
type builder struct {
	edit  *edit
	n     int // objects so far
	peers peers
}

func newBuilder() *builder { return &builder{edit: newTables().edit(), peers: peers{}} }

func (b *builder) add(stored *api.StoredObject) error {
	o := object.Unwrap(stored)
	if o == nil || o.GetId() == "" {
		return fmt.Errorf("object %d of the snapshot is of an unknown kind or has no id: %w", b.n, ErrInvalid)
	}
	if s, ok := o.(*api.AuditSegment); ok {
		o = unshared(s)
	}
	b.peers.share(&b.edit.tables, o)
	b.edit.put(o)
	b.n++
	return nil
}

// built is a state that a machine can take over. Its rest has no objects.
type built struct {
	tables *tables
	rest   *api.StoreSnapshot
}

func (b *builder) finish(rest *api.StoreSnapshot) *built {
	return &built{tables: b.edit.done(), rest: rest}
}

// readState decodes what write encoded, and checks that it is the state of a cluster at an index.
func readState(from io.Reader, clusterID string, index Index) (*built, error) {
	b := newBuilder()
	rest, err := readFields(bufio.NewReaderSize(from, 64<<10), b)
	if err != nil {
		return nil, err
	}
	if rest.GetClusterId() != clusterID || rest.GetIndex() != index {
		return nil, fmt.Errorf("%w: the snapshot is of cluster %q at %d", ErrInvalid, rest.GetClusterId(), rest.GetIndex())
	}
	return b.finish(rest), nil
}

var errSnapshotField = errors.New("a field of the snapshot is damaged")

// readFields adds the objects to b and returns all other fields.
func readFields(from *bufio.Reader, b *builder) (*api.StoreSnapshot, error) {
	var others, field []byte
	for {
		tag, err := binary.ReadUvarint(from)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read snapshot: %w", err)
		}
		number, kind := protowire.DecodeTag(tag)
		value, err := binary.ReadUvarint(from) // of a number, or the length of what follows: there is nothing else in it
		if err != nil {
			return nil, fmt.Errorf("read snapshot: %w", unexpectedEnd(err))
		}
		if kind != protowire.BytesType {
			if kind != protowire.VarintType {
				return nil, errSnapshotField
			}
			others = protowire.AppendVarint(protowire.AppendTag(others, number, kind), value)
			continue
		}
		if field, err = readField(from, field, value); err != nil {
			return nil, err
		}
		if number != objectsField {
			others = protowire.AppendBytes(protowire.AppendTag(others, number, kind), field)
			continue
		}
		var stored api.StoredObject
		if err := proto.Unmarshal(field, &stored); err != nil {
			return nil, fmt.Errorf("decode object: %w", err)
		}
		if err := b.add(&stored); err != nil {
			return nil, err
		}
	}
	rest := &api.StoreSnapshot{}
	if err := proto.Unmarshal(others, rest); err != nil {
		return nil, fmt.Errorf("decode snapshot: %w", err)
	}
	return rest, nil
}

// readField reads size bytes into field, whose memory it uses again.
func readField(from *bufio.Reader, field []byte, size uint64) ([]byte, error) {
	if size > MaxEntrySize {
		return nil, fmt.Errorf("%w: it has %d bytes", errSnapshotField, size)
	}
	if uint64(cap(field)) < size {
		field = make([]byte, size)
	}
	field = field[:size]
	if _, err := io.ReadFull(from, field); err != nil {
		return nil, fmt.Errorf("read snapshot: %w", unexpectedEnd(err))
	}
	return field, nil
}

// unexpectedEnd keeps an end in the middle of a field from looking like the end of all.
func unexpectedEnd(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// build makes a state of a message, which it owns from then on.
func build(s *api.StoreSnapshot) (*built, error) {
	b := newBuilder()
	for _, stored := range s.GetObjects() {
		if err := b.add(stored); err != nil {
			return nil, err
		}
	}
	s.Objects = nil
	return b.finish(s), nil
}

// restore replaces the whole state.
func (m *machine) restore(b *built) error {
	if b.rest.GetClusterId() != m.clusterID {
		return fmt.Errorf("the snapshot belongs to cluster %q, this manager to %q: %w", b.rest.GetClusterId(), m.clusterID, ErrInvalid)
	}
	var versions [object.MaxKind + 1]Index
	for _, v := range b.rest.GetKindVersions() {
		if kind := object.Kind(v.GetKind()); kind.Valid() {
			versions[kind] = v.GetVersion()
		}
	}
	m.tables, m.index, m.kindVersions = b.tables, b.rest.GetIndex(), versions
	m.requests.load(b.rest.GetNamedRequests(), b.rest.GetOwnRequests())
	m.members.load(b.rest.GetMembers(), b.rest.GetRemovedRaftIds())
	m.publish()
	return nil
}
