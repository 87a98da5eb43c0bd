package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/unpack"
)

// Rootfs is what a container is made of: read-only directories for an overlay
// mount, and what the image says about its program.
type Rootfs struct {
	Digest digest.Digest   // of the manifest
	Layers []string        // absolute directories, top first; at least one
	Config manifest.Config // describes the program; it must change nothing else
}

// Rootfs returns the directories of an image by the digest of its manifest or
// index, after unpacking those that are missing, which needs root. The image is
// kept until release is called, which may be called more than once and from any
// goroutine. It returns [ErrNotFound] when the image is not stored.
func (s *Store) Rootfs(ctx context.Context, d digest.Digest) (_ Rootfs, release func(), err error) {
	d, rec, release, err := s.lease(d)
	if err != nil {
		return Rootfs{}, nil, err
	}
	rootfs, err := s.rootfs(ctx, d, *rec)
	if err != nil {
		release()
		return Rootfs{}, nil, fmt.Errorf("root filesystem of image %s: %w", d, err)
	}
	return rootfs, release, nil
}

// rootfs is Rootfs for an image that is leased.
func (s *Store) rootfs(ctx context.Context, d digest.Digest, rec record) (Rootfs, error) {
	end := s.sessions.begin()
	defer func() { s.finish(end()) }()
	m, err := s.manifest(d)
	if err != nil {
		return Rootfs{}, err
	}
	config, err := s.config(m)
	if err != nil {
		return Rootfs{}, err
	}
	layers, err := s.layers(ctx, rec)
	if err != nil {
		return Rootfs{}, err
	}
	return Rootfs{Digest: d, Layers: layers, Config: config}, nil
}

// lease keeps an image from being removed until it is released.
func (s *Store) lease(d digest.Digest) (found digest.Digest, rec *record, release func(), err error) {
	s.leaseMu.Lock() // across the look-up: Remove must not come in between
	defer s.leaseMu.Unlock()
	err = s.view(func(t tables) error {
		found, rec, err = t.manifestOf(d)
		return err
	})
	if err != nil {
		return "", nil, nil, err
	}
	s.leases[found]++
	release = sync.OnceFunc(func() {
		s.leaseMu.Lock()
		defer s.leaseMu.Unlock()
		if s.leases[found]--; s.leases[found] == 0 {
			delete(s.leases, found)
		}
	})
	return found, rec, release, nil
}

// layers returns the unpacked directories of an image, top first.
func (s *Store) layers(ctx context.Context, rec record) ([]string, error) {
	if len(rec.Chain) == 0 {
		return nil, fmt.Errorf("%w: it has no layers, so there is nothing to run", manifest.ErrUnsupported)
	}
	var dirs []string // top first
	for n, chainID := range rec.Chain {
		have, err := s.layer(ctx, chainID, rec.Layers[n], rec.DiffIDs[n], dirs)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", n+1, err)
		}
		if have.Opaque {
			dirs = nil
		}
		dirs = slices.Insert(dirs, 0, s.layerFS(chainID))
	}
	return dirs, nil
}

// layer makes sure that a layer is unpacked. Concurrent callers share the work.
func (s *Store) layer(ctx context.Context, chainID, blobDigest, diffID digest.Digest, parents []string) (*layerRecord, error) {
	for {
		var rec *layerRecord
		err := s.view(func(t tables) (err error) {
			rec, err = t.layer(chainID)
			return err
		})
		if err != nil || rec != nil {
			return rec, err
		}
		err = s.unpacks.do(ctx, chainID, func(ctx context.Context) error {
			return s.unpack(ctx, chainID, blobDigest, diffID, parents)
		})
		if err != nil {
			return nil, err
		}
	}
}

// unpack unpacks one layer beside its place and then moves it there (I3).
func (s *Store) unpack(ctx context.Context, chainID, blobDigest, diffID digest.Digest, parents []string) error {
	select {
	case s.unpacking <- struct{}{}:
		defer func() { <-s.unpacking }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	content, err := s.blobs.Open(blobDigest)
	if err != nil {
		return err
	}
	defer content.Close()
	if err := s.step("create layer"); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(s.layersDir(), tempLayer)
	if err != nil {
		return err
	}
	report, err := s.unpackTo(ctx, filepath.Join(tmp, "fs"), unpack.Request{
		Blob: content.File, DiffID: diffID, Parents: parents, Limits: s.limits,
	})
	if err == nil {
		err = s.installLayer(tmp, chainID, report)
	}
	if err != nil {
		return errors.Join(err, s.discard(tmp))
	}
	return nil
}

func (s *Store) unpackTo(ctx context.Context, dir string, req unpack.Request) (unpack.Report, error) {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return unpack.Report{}, err
	}
	if err := s.step("unpack layer"); err != nil {
		return unpack.Report{}, err
	}
	req.Dir = dir
	return unpack.Run(ctx, req)
}

func (s *Store) installLayer(tmp string, chainID digest.Digest, report unpack.Report) error {
	if err := s.step("rename layer"); err != nil {
		return err
	}
	if err := os.Rename(tmp, s.layerDir(chainID)); err != nil {
		return err
	}
	rec := layerRecord{Bytes: report.Bytes, Entries: report.Entries, Opaque: slices.Contains(report.Opaque, "."), Boot: s.boot}
	return s.update(func(t tables) error { return t.putLayer(chainID, rec) })
}

// discard removes a directory that nothing refers to, if it is still there.
func (s *Store) discard(dir string) error {
	if err := s.step("remove layer"); err != nil {
		return nil // crashed already
	}
	return os.RemoveAll(dir)
}

// repairLayers removes what is not in the database, and forgets layers that are
// gone or that the machine may have lost parts of (I3).
func (s *Store) repairLayers() error {
	known := map[string]bool{}
	err := s.update(func(t tables) error {
		ids, err := t.layerIDs()
		if err != nil {
			return err
		}
		for _, id := range ids {
			whole, err := s.isWhole(t, id)
			if err != nil {
				return err
			}
			if known[id.Encoded()] = whole; whole {
				continue
			}
			if err := t.bucket("layers").Delete([]byte(id)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	entries, err := os.ReadDir(s.layersDir())
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if known[entry.Name()] && !strings.HasPrefix(entry.Name(), tempLayer) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.layersDir(), entry.Name())); err != nil {
			return err
		}
	}
	return s.emptyTrash()
}

func (s *Store) isWhole(t tables, chainID digest.Digest) (bool, error) {
	rec, err := t.layer(chainID)
	if err != nil || rec.Boot != "" && rec.Boot != s.boot {
		return false, err
	}
	_, err = os.Stat(s.layerFS(chainID))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// syncLayers syncs everything once and notes that the layers are safe from now
// on. Syncing each as it is unpacked would let the first container of an image
// wait for whatever else the machine has to write.
func (s *Store) syncLayers() error {
	unsynced := map[digest.Digest]layerRecord{}
	err := s.view(func(t tables) error {
		ids, err := t.layerIDs()
		if err != nil {
			return err
		}
		for _, id := range ids {
			rec, err := t.layer(id)
			if err != nil {
				return err
			}
			if rec.Boot != "" {
				rec.Boot = ""
				unsynced[id] = *rec
			}
		}
		return nil
	})
	if err != nil || len(unsynced) == 0 {
		return err
	}
	if err := s.step("sync layers"); err != nil {
		return nil // crashed
	}
	dir, err := os.Open(s.layersDir())
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync layers: %w", err)
	}
	return s.update(func(t tables) error {
		for id, rec := range unsynced {
			if err := t.putLayer(id, rec); err != nil {
				return err
			}
		}
		return nil
	})
}
