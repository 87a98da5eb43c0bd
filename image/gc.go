package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// Freed says what a collection deleted.
type Freed struct {
	Blobs    int
	Layers   int
	Bytes    int64 // of blobs as stored and of layers unpacked
	Deferred bool  // a session was open: it is made up for when that ends (I5)
}

// sessions keeps apart the collection of garbage and the operations that add
// content, which is garbage until the database refers to it. A collection never
// waits for them: it is put off.
type sessions struct {
	sweep func() (Freed, error) // constant; runs under mu

	mu     sync.Mutex
	open   int  // guarded by mu
	wanted bool // guarded by mu; a collection was put off
}

// begin opens a session. Its end must be called exactly once; it collects if
// that was put off and this was the last session.
func (s *sessions) begin() (end func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	return func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open--; s.open > 0 || !s.wanted {
			return nil
		}
		s.wanted = false
		_, err := s.sweep()
		return err
	}
}

// want asks for a collection when the last session ends.
func (s *sessions) want() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = true
}

// collect collects now, or puts it off.
func (s *sessions) collect() (Freed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open > 0 {
		s.wanted = true
		return Freed{Deferred: true}, nil
	}
	return s.sweep()
}

// finish ends a background collection: deletes what it put into the trash and
// reports its error, which concerns nobody in particular.
func (s *Store) finish(err error) {
	if err = errors.Join(err, s.emptyTrash()); err != nil {
		s.log.Warn("collect image garbage", "err", err)
	}
}

// GC deletes blobs and unpacked layers that belong to no image. Images without
// references are images still; see Prune.
func (s *Store) GC(ctx context.Context) (Freed, error) {
	if err := context.Cause(ctx); err != nil {
		return Freed{}, err
	}
	freed, err := s.sessions.collect()
	if err = errors.Join(err, s.emptyTrash()); err != nil {
		return freed, fmt.Errorf("collect image garbage: %w", err)
	}
	return freed, nil
}

// sweep deletes what no image refers to. Layers only move to the trash: deleting
// a large tree takes too long to hold up sessions. It runs under sessions.mu.
func (s *Store) sweep() (Freed, error) {
	var freed Freed
	var marked map[digest.Digest]bool
	layers := map[digest.Digest]layerRecord{}
	err := s.view(func(t tables) (err error) {
		if marked, err = t.members(); err != nil {
			return err
		}
		layers, err = t.garbageLayers()
		return err
	})
	if err != nil {
		return freed, err
	}
	for chainID, rec := range layers {
		if err := s.deleteLayer(chainID); err != nil {
			return freed, err
		}
		freed.Layers++
		freed.Bytes += rec.Bytes
	}
	if err := s.blobs.Sweep(time.Now().Add(-partialAge)); err != nil { // no session, so no ingest
		return freed, err
	}
	blobs, err := s.blobs.List()
	if err != nil {
		return freed, err
	}
	for _, b := range blobs {
		if marked[b.Digest] {
			continue
		}
		if err := s.blobs.Remove(b.Digest); err != nil {
			return freed, err
		}
		freed.Blobs++
		freed.Bytes += b.Size
	}
	return freed, nil
}

// garbageLayers returns the unpacked layers that no image has.
func (t tables) garbageLayers() (map[digest.Digest]layerRecord, error) {
	used := map[digest.Digest]bool{}
	err := t.images(func(_ digest.Digest, rec record) error {
		for _, chainID := range rec.Chain {
			used[chainID] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ids, err := t.layerIDs()
	if err != nil {
		return nil, err
	}
	garbage := map[digest.Digest]layerRecord{}
	for _, id := range ids {
		if used[id] {
			continue
		}
		rec, err := t.layer(id)
		if err != nil {
			return nil, err
		}
		garbage[id] = *rec
	}
	return garbage, nil
}

// deleteLayer makes the database forget a layer before its directory goes (I1).
func (s *Store) deleteLayer(chainID digest.Digest) error {
	err := s.update(func(t tables) error { return t.bucket("layers").Delete([]byte(chainID)) })
	if err != nil {
		return err
	}
	if err := s.step("trash layer"); err != nil {
		return err
	}
	place, err := os.MkdirTemp(s.trashDir(), "")
	if err != nil {
		return err
	}
	return os.Rename(s.layerDir(chainID), filepath.Join(place, "layer"))
}

func (s *Store) emptyTrash() error {
	entries, err := os.ReadDir(s.trashDir())
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := s.step("empty trash"); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(s.trashDir(), entry.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Remove takes a reference from its image, and removes the image with its last
// one. Given a digest it removes the image with all its references. An image
// that containers use keeps its last reference: [ErrInUse].
func (s *Store) Remove(ctx context.Context, refOrDigest string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	s.leaseMu.Lock() // a lease must not come in between
	err := s.update(func(t tables) error { return s.remove(t, refOrDigest) })
	s.leaseMu.Unlock()
	if err != nil {
		return err
	}
	s.notify()
	_, err = s.GC(ctx)
	return err
}

// remove is Remove within its transaction, under leaseMu.
func (s *Store) remove(t tables, refOrDigest string) error {
	d, err := t.resolve(refOrDigest)
	if err != nil {
		return err
	}
	refs, err := t.refsOf(d)
	if err != nil {
		return err
	}
	if key, named := t.refKey(refOrDigest, d); named && len(refs) > 1 {
		return t.bucket("refs").Delete([]byte(key))
	}
	if n := s.leases[d]; n > 0 {
		return fmt.Errorf("%w: %s by %d container(s); remove the services that use it first", ErrInUse, refOrDigest, n)
	}
	rec, err := t.image(d)
	if err != nil {
		return err
	}
	return t.deleteImage(d, *rec)
}

// Prune removes the images that have no reference and that no container uses.
func (s *Store) Prune(ctx context.Context) (Freed, error) {
	if err := context.Cause(ctx); err != nil {
		return Freed{}, err
	}
	s.leaseMu.Lock()
	err := s.update(s.prune)
	s.leaseMu.Unlock()
	if err != nil {
		return Freed{}, fmt.Errorf("prune images: %w", err)
	}
	s.notify()
	return s.GC(ctx)
}

// prune is Prune within its transaction, under leaseMu.
func (s *Store) prune(t tables) error {
	untagged := map[digest.Digest]record{}
	err := t.images(func(d digest.Digest, rec record) error {
		refs, err := t.refsOf(d)
		if len(refs) == 0 && s.leases[d] == 0 {
			untagged[d] = rec
		}
		return err
	})
	if err != nil {
		return err
	}
	for d, rec := range untagged {
		if err := t.deleteImage(d, rec); err != nil {
			return err
		}
	}
	return nil
}
