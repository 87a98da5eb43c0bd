package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"github.com/skep-io/skep/store/vfs"
)

// Source says where the KEK comes from. Part of what is on disk.
type Source byte

// The sources.
const (
	SourceKeyFile   Source = 1
	SourceUnlockKey Source = 2
)

// String names the source as `skep info` shows it.
func (s Source) String() string {
	switch s {
	case SourceKeyFile:
		return "key file"
	case SourceUnlockKey:
		return "unlock key"
	default:
		return fmt.Sprintf("source(%d)", byte(s))
	}
}

const (
	ringMagic = "SKPRING1"
	ringPerm  = 0o600
	// maxRing bounds the file: 100 keys are 100 rotations without a snapshot in between.
	maxRing = 4096
)

// Ring is the DEKs of a manager. The file holds what the memory does after each method that returns no error.
type Ring struct {
	// Constant after the constructor.
	fs      vfs.FS
	path    string
	cluster string

	mu      sync.Mutex
	kek     Key
	source  Source
	current uint32
	keys    map[uint32]Key
}

// CreateRing makes a ring with one fresh DEK, and its file, which must not be there yet.
func CreateRing(fsys vfs.FS, path, cluster string, kek Key, source Source) (*Ring, error) {
	if _, err := fsys.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("create key ring %s: %w", path, orExist(err))
	}
	r := &Ring{
		fs: fsys, path: path, cluster: cluster, kek: kek, source: source,
		current: 1, keys: map[uint32]Key{1: NewKey()},
	}
	if err := r.write(r.kek, r.source, r.current, r.keys); err != nil {
		return nil, err
	}
	return r, nil
}

func orExist(err error) error {
	if err == nil {
		return fs.ErrExist
	}
	return err
}

// RingSource says what kind of KEK the ring at path needs, without it.
func RingSource(fsys vfs.FS, path string) (Source, error) {
	source, _, err := readRing(fsys, path)
	return source, err
}

func readRing(fsys vfs.FS, path string) (Source, []byte, error) {
	b, err := vfs.ReadFile(fsys, path, maxRing)
	if err != nil {
		return 0, nil, fmt.Errorf("read key ring: %w", err)
	}
	if len(b) < len(ringMagic)+1 || string(b[:len(ringMagic)]) != ringMagic {
		return 0, nil, fmt.Errorf("key ring %s: %w", path, ErrFormat)
	}
	return Source(b[len(ringMagic)]), b[len(ringMagic)+1:], nil
}

// ringPlace binds the source, which is readable without the key, to the envelope.
func ringPlace(cluster string, source Source) Place {
	return Place{Kind: KindRing, Cluster: cluster, Part: uint64(source)}
}

// OpenRing reads a ring. It returns ErrWrongKey when the KEK does not open it; a damaged file looks the same.
func OpenRing(fsys vfs.FS, path, cluster string, kek Key) (*Ring, error) {
	source, envelope, err := readRing(fsys, path)
	if err != nil {
		return nil, err
	}
	plain, err := openWith(kek, ringPlace(cluster, source), envelope)
	if err != nil {
		return nil, fmt.Errorf("key ring %s: %w", path, ErrWrongKey)
	}
	r := &Ring{fs: fsys, path: path, cluster: cluster, kek: kek, source: source, keys: map[uint32]Key{}}
	const item = 4 + KeySize
	if len(plain) < 4 || (len(plain)-4)%item != 0 {
		return nil, fmt.Errorf("key ring %s: %w", path, ErrFormat)
	}
	r.current = binary.BigEndian.Uint32(plain)
	for rest := plain[4:]; len(rest) > 0; rest = rest[item:] {
		r.keys[binary.BigEndian.Uint32(rest)] = Key{[KeySize]byte(rest[4:item])}
	}
	if _, ok := r.keys[r.current]; !ok {
		return nil, fmt.Errorf("key ring %s: %w", path, ErrFormat)
	}
	return r, nil
}

// write replaces the file.
func (r *Ring) write(kek Key, source Source, current uint32, keys map[uint32]Key) error {
	plain := binary.BigEndian.AppendUint32(nil, current)
	for _, id := range slices.Sorted(maps.Keys(keys)) {
		k := keys[id]
		plain = binary.BigEndian.AppendUint32(plain, id)
		plain = append(plain, k.bytes[:]...)
	}
	b := append([]byte(ringMagic), byte(source))
	b, err := sealWith(b, kek, kekID, ringPlace(r.cluster, source), plain)
	if err != nil {
		return fmt.Errorf("seal key ring: %w", err)
	}
	if len(b) > maxRing {
		return fmt.Errorf("key ring %s: %w: too many keys, take a snapshot first", r.path, vfs.ErrTooLarge)
	}
	return vfs.WriteFile(r.fs, r.path, ringPerm, b)
}

// Source says where the KEK comes from.
func (r *Ring) Source() Source {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.source
}

// WrappedBy reports whether this KEK, of this source, opens the ring.
func (r *Ring) WrappedBy(kek Key, source Source) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.source == source && r.kek.Equal(kek)
}

// Rewrap seals the ring with another KEK, for example when autolock is switched on. The old one opens it no more.
func (r *Ring) Rewrap(kek Key, source Source) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.write(kek, source, r.current, r.keys); err != nil {
		return err
	}
	r.kek, r.source = kek, source
	return nil
}

// Rotate adds a fresh DEK, which seals everything from now on.
func (r *Ring) Rotate() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	keys := maps.Clone(r.keys)
	next := slices.Max(slices.Collect(maps.Keys(keys))) + 1
	keys[next] = NewKey()
	if err := r.write(r.kek, r.source, next, keys); err != nil {
		return err
	}
	r.current, r.keys = next, keys
	return nil
}

// Prune forgets all DEKs but the current one. Call it when nothing on disk is sealed by the others any more.
func (r *Ring) Prune() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.keys) == 1 {
		return nil
	}
	keys := map[uint32]Key{r.current: r.keys[r.current]}
	if err := r.write(r.kek, r.source, r.current, keys); err != nil {
		return err
	}
	r.keys = keys
	return nil
}

// Seal appends the envelope of content to dst. The cluster of the place is the ring's.
func (r *Ring) Seal(dst []byte, p Place, content []byte) ([]byte, error) {
	r.mu.Lock()
	id := r.current
	k := r.keys[id]
	r.mu.Unlock()
	p.Cluster = r.cluster
	return sealWith(dst, k, id, p, content)
}

// Open returns the content of an envelope, or ErrOpen. The cluster of the place is the ring's.
func (r *Ring) Open(p Place, envelope []byte) ([]byte, error) {
	id, err := keyID(envelope)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	k, ok := r.keys[id]
	r.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("%w: key %d is not in the ring", ErrOpen, id)
	}
	p.Cluster = r.cluster
	return openWith(k, p, envelope)
}
