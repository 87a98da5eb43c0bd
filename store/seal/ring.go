package seal

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/skep-io/skep/store/vfs"
)

// Ring is the DEKs of a manager. The file holds what the memory does after each method that returns no error.
type Ring struct {
	// Constant after the constructor.
	fs      vfs.FS
	path    string
	cluster string

	mu     sync.Mutex
	kek    Key    // guarded by mu
	source Source // guarded by mu
	deks   deks   // guarded by mu; its map is replaced, never changed
}

// CreateRing makes a ring with one fresh DEK, and its file, which must not be there yet.
func CreateRing(fsys vfs.FS, path, cluster string, kek Key, source Source) (*Ring, error) {
	if _, err := fsys.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("create key ring %s: %w", path, orExist(err))
	}
	r := &Ring{
		fs: fsys, path: path, cluster: cluster, kek: kek, source: source,
		deks: deks{current: 1, keys: map[uint32]dek{1: newDEK()}},
	}
	if err := r.write(r.kek, r.source, r.deks); err != nil {
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

// OpenRing reads a ring. It returns ErrWrongKey when the KEK does not open it; a damaged file looks the same.
func OpenRing(fsys vfs.FS, path, cluster string, kek Key) (*Ring, error) {
	file, err := readRing(fsys, path)
	if err != nil {
		return nil, err
	}
	plain, err := openWith(kek, file.place(cluster), file.envelope)
	if err != nil {
		return nil, fmt.Errorf("key ring %s: %w", path, ErrWrongKey)
	}
	keys, err := decodeDEKs(file.format, plain)
	if err != nil {
		return nil, fmt.Errorf("key ring %s: %w", path, err)
	}
	return &Ring{fs: fsys, path: path, cluster: cluster, kek: kek, source: file.source, deks: keys}, nil
}

// write replaces the file.
func (r *Ring) write(kek Key, source Source, keys deks) error {
	file := ringFile{format: ringFormat, source: source}
	b, err := sealWith(file.head(), kek, kekID, file.place(r.cluster), keys.encode())
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
	if err := r.write(kek, source, r.deks); err != nil {
		return err
	}
	r.kek, r.source = kek, source
	return nil
}

// become replaces the DEKs, on disk first. The caller holds mu.
func (r *Ring) become(keys deks) error {
	if err := r.write(r.kek, r.source, keys); err != nil {
		return err
	}
	r.deks = keys
	return nil
}

// Rotate adds a fresh DEK, which seals everything from now on.
func (r *Ring) Rotate() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.deks
	next.keys = maps.Clone(next.keys)
	next.current = slices.Max(slices.Collect(maps.Keys(next.keys))) + 1
	next.keys[next.current] = newDEK()
	return r.become(next)
}

// SealedNow reports whether the DEK that seals everything now sealed an envelope, of which the first Overhead bytes are enough.
func (r *Ring) SealedNow(envelope []byte) bool {
	id, err := keyID(envelope)
	r.mu.Lock()
	defer r.mu.Unlock()
	return err == nil && id == r.deks.current
}

// Prune forgets all DEKs but the current one. Call it when nothing on disk is sealed by the others any more.
func (r *Ring) Prune() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.deks.keys) == 1 {
		return nil
	}
	next := r.deks
	next.keys = map[uint32]dek{next.current: next.keys[next.current]}
	return r.become(next)
}

// DataKey says when the oldest DEK was made that still opens something: a rotation that a crash stopped leaves that as old as it
// was. The zero time means unknown, as in rings of format 1. Generation is what Served noted last.
func (r *Ring) DataKey() (madeAt time.Time, generation uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.deks.oldest(), r.deks.generation
}

// Served notes that a rotation is done that somebody asked for by a number.
func (r *Ring) Served(generation uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.deks
	next.generation = generation
	return r.become(next)
}

// Seal appends the envelope of content to dst. The cluster of the place is the ring's.
func (r *Ring) Seal(dst []byte, p Place, content []byte) ([]byte, error) {
	r.mu.Lock()
	id := r.deks.current
	k := r.deks.keys[id].key
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
	k, ok := r.deks.keys[id]
	r.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("%w: key %d is not in the ring", ErrOpen, id)
	}
	p.Cluster = r.cluster
	return openWith(k.key, p, envelope)
}
