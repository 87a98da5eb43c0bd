package image

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/skep-io/skep/image/archive"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/reference"
)

// Load stores the images of an archive: what docker save wrote, or an OCI
// layout as a tar; compressed or not. All of them are stored or none. A
// reference that another image has moves to the new one.
func (s *Store) Load(ctx context.Context, r io.Reader) ([]Image, error) {
	return s.add(func() ([]archive.Image, error) {
		return archive.Read(ctx, r, s.blobs, archive.Options{Platform: s.platform})
	})
}

// LoadDir stores the images of an OCI layout that is a folder.
func (s *Store) LoadDir(ctx context.Context, dir string) ([]Image, error) {
	return s.add(func() ([]archive.Image, error) {
		return archive.ReadDir(ctx, dir, s.blobs, archive.Options{Platform: s.platform})
	})
}

// Import makes an image named ref from the tar of a root filesystem.
func (s *Store) Import(ctx context.Context, r io.Reader, ref string, cfg archive.RootfsConfig) (Image, error) {
	parsed, err := reference.Parse(ref)
	if err != nil {
		return Image{}, err
	}
	images, err := s.add(func() ([]archive.Image, error) {
		img, err := archive.Import(ctx, r, s.blobs, parsed, cfg, archive.Options{Platform: s.platform})
		return []archive.Image{img}, err
	})
	if err != nil {
		return Image{}, err
	}
	return images[0], nil
}

// Tag gives an image another reference.
func (s *Store) Tag(ctx context.Context, refOrDigest, ref string) error {
	parsed, err := reference.Parse(ref)
	if err != nil {
		return err
	}
	d, err := s.Resolve(ctx, refOrDigest)
	if err != nil {
		return err
	}
	return s.putRefs(d, []reference.Reference{parsed})
}

// putRefs points references at a stored image.
func (s *Store) putRefs(d digest.Digest, refs []reference.Reference) error {
	err := s.update(func(t tables) error {
		if _, _, err := t.manifestOf(d); err != nil {
			return err
		}
		return t.putRefs(d, refs)
	})
	if err == nil {
		s.notify()
	}
	return err
}

// add stores what read finds, in a session. What read left in the blob store
// beyond that is collected.
func (s *Store) add(read func() ([]archive.Image, error)) ([]Image, error) {
	end := s.sessions.begin()
	defer func() { s.finish(end()) }()
	s.sessions.want()
	found, err := read()
	if err != nil {
		return nil, err
	}
	records := make([]record, len(found))
	for n, img := range found {
		if records[n], err = s.newRecord(img.Manifest, img.Index); err != nil {
			return nil, err
		}
		for _, other := range img.Others {
			m, err := s.manifest(other)
			if err != nil {
				return nil, err
			}
			records[n].keep(other, m)
		}
	}
	var images []Image
	err = s.update(func(t tables) error {
		for n, img := range found {
			if err := t.putImage(img.Manifest, records[n]); err != nil {
				return err
			}
			if err := t.putRefs(img.Manifest, img.References); err != nil {
				return err
			}
		}
		for _, img := range found { // once all references are where they end up
			_, rec, err := t.manifestOf(img.Manifest)
			if err != nil {
				return err
			}
			described, err := t.describe(img.Manifest, *rec)
			if err != nil {
				return err
			}
			images = append(images, described)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("store images: %w", err)
	}
	s.notify()
	return images, nil
}

// newRecord reads a stored manifest and its config and checks that everything
// they name is stored too (I1).
func (s *Store) newRecord(d, index digest.Digest) (record, error) {
	m, err := s.manifest(d)
	if err != nil {
		return record{}, err
	}
	config, err := s.config(m)
	if err != nil {
		return record{}, err
	}
	rec := record{
		Config: m.Config.Digest, DiffIDs: config.RootFS.DiffIDs,
		Chain: manifest.ChainIDs(config.RootFS.DiffIDs), Size: m.Size(), Loaded: time.Now().UTC(), Platform: config.Platform,
	}
	if config.Created != nil {
		rec.Created = *config.Created
	}
	for _, layer := range m.Layers {
		rec.Layers = append(rec.Layers, layer.Digest)
	}
	for _, b := range m.Blobs() {
		if _, err := s.blobs.Stat(b.Digest); err != nil {
			return record{}, fmt.Errorf("image %s: %w", d, err)
		}
	}
	rec.keep(d, m)
	if index != "" {
		rec.Indexes = []digest.Digest{index}
		rec.Blobs = union(rec.Blobs, rec.Indexes)
	}
	return rec, nil
}

// keep adds a manifest and all that it names to the blobs of an image.
func (rec *record) keep(d digest.Digest, m manifest.Manifest) {
	rec.Blobs = union(rec.Blobs, []digest.Digest{d})
	for _, b := range m.Blobs() {
		rec.Blobs = union(rec.Blobs, []digest.Digest{b.Digest})
	}
}

// manifest reads a stored manifest, verified.
func (s *Store) manifest(d digest.Digest) (manifest.Manifest, error) {
	data, err := s.blobs.ReadAll(d, manifest.MaxDocument)
	if err != nil {
		return manifest.Manifest{}, fmt.Errorf("manifest of image %s: %w", d, err)
	}
	doc, err := manifest.Parse(data)
	if err != nil {
		return manifest.Manifest{}, fmt.Errorf("manifest of image %s: %w", d, err)
	}
	if doc.Manifest == nil {
		return manifest.Manifest{}, fmt.Errorf("%w: %s is an index, not a manifest", manifest.ErrInvalid, d)
	}
	return *doc.Manifest, nil
}

// config reads a stored config, verified.
func (s *Store) config(m manifest.Manifest) (manifest.Config, error) {
	data, err := s.blobs.ReadAll(m.Config.Digest, manifest.MaxDocument)
	if err != nil {
		return manifest.Config{}, fmt.Errorf("image config: %w", err)
	}
	return manifest.ParseConfig(data, m)
}
