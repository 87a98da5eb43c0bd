package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/skep-io/skep/image/blob"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/reference"
)

// minPrefix is the fewest hex digits that are taken for a shortened digest.
// Fewer are more likely a name that was mistyped.
const minPrefix = 6

// Details is an image with its config.
type Details struct {
	Image
	Config manifest.Config // platform, what to run, diffIDs, history
	Layers []Descriptor    // bottom first, as stored
}

// Descriptor names one stored blob: digest, size in bytes, media type.
type Descriptor = manifest.Descriptor

// List returns all images, those with references first, by reference.
func (s *Store) List(ctx context.Context) ([]Image, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	images := []Image{}
	err := s.view(func(t tables) error {
		return t.images(func(d digest.Digest, rec record) error {
			img, err := t.describe(d, rec)
			images = append(images, img)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	slices.SortStableFunc(images, func(a, b Image) int { return cmp.Compare(sortKey(a), sortKey(b)) })
	return images, nil
}

func sortKey(img Image) string {
	if len(img.References) == 0 {
		return "\xff"
	}
	return img.References[0]
}

// Resolve returns the manifest digest of an image by its reference (app,
// app:tag, app@sha256:…), by the digest of its manifest, of an index or of its
// config, or by the first digits of one. It returns [ErrNotFound] when the
// store does not have it and [ErrAmbiguous] when the digits fit several.
func (s *Store) Resolve(ctx context.Context, refOrDigest string) (digest.Digest, error) {
	if err := context.Cause(ctx); err != nil {
		return "", err
	}
	var found digest.Digest
	err := s.view(func(t tables) error {
		var err error
		found, err = t.resolve(refOrDigest)
		return err
	})
	return found, err
}

// resolve prefers a name to the digits of a digest: an image called facade must
// not be mistaken for another whose digest begins so.
func (t tables) resolve(name string) (digest.Digest, error) {
	if hex, ok := strings.CutPrefix(name, "sha256:"); ok && isHex(hex) {
		return t.resolvePrefix(hex)
	}
	ref, err := reference.Parse(name)
	if err == nil {
		var found digest.Digest
		if found, err = t.resolveRef(ref); err == nil {
			return found, nil
		}
	}
	if isHex(name) && len(name) >= minPrefix {
		return t.resolvePrefix(name)
	}
	return "", err
}

// resolveRef returns the image that a reference leads to. With a digest the name
// does not matter: the content is the same wherever it came from.
func (t tables) resolveRef(ref reference.Reference) (digest.Digest, error) {
	if d := ref.Digest(); d != "" {
		found, _, err := t.manifestOf(d)
		if errors.Is(err, ErrNotFound) {
			return "", fmt.Errorf("%w: %s", ErrNotFound, ref.Familiar())
		}
		return found, err
	}
	d := t.bucket("refs").Get([]byte(ref.String()))
	if d == nil {
		return "", fmt.Errorf("%w: %s", ErrNotFound, ref.Familiar())
	}
	return digest.Digest(d), nil
}

func isHex(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// resolvePrefix returns the one image of which the manifest, an index or the
// config has a sha256 that begins with hex.
func (t tables) resolvePrefix(hex string) (digest.Digest, error) {
	found := digest.Digest("")
	fits := func(d digest.Digest) bool { return strings.HasPrefix(string(d), "sha256:"+hex) }
	err := t.images(func(d digest.Digest, rec record) error {
		if !fits(d) && !fits(rec.Config) && !slices.ContainsFunc(rec.Indexes, fits) {
			return nil
		}
		if found != "" {
			return errStop
		}
		found = d
		return nil
	})
	if errors.Is(err, errStop) {
		return "", fmt.Errorf("%w: several begin with %s; give more digits or a name", ErrAmbiguous, hex)
	}
	if err == nil && found == "" {
		err = fmt.Errorf("%w: %s", ErrNotFound, hex)
	}
	return found, err
}

// Inspect returns an image and its config.
func (s *Store) Inspect(ctx context.Context, refOrDigest string) (Details, error) {
	d, err := s.Resolve(ctx, refOrDigest)
	if err != nil {
		return Details{}, err
	}
	var details Details
	err = s.view(func(t tables) error {
		_, rec, err := t.manifestOf(d)
		if err != nil {
			return err
		}
		details.Image, err = t.describe(d, *rec)
		return err
	})
	if err != nil {
		return Details{}, err
	}
	m, err := s.manifest(d)
	if err != nil {
		return Details{}, err
	}
	details.Layers = m.Layers
	details.Config, err = s.config(m)
	return details, err
}

// Blob opens a blob that belongs to an image, for a peer that fetches it, and
// returns its size in bytes (I6). The caller closes it. The image may be removed
// meanwhile; the reader goes on.
func (s *Store) Blob(ctx context.Context, d digest.Digest) (io.ReadSeekCloser, int64, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, 0, err
	}
	if err := blob.Check(d); err != nil {
		return nil, 0, err
	}
	member := false
	err := s.view(func(t tables) error {
		member = t.isMember(d)
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	if !member {
		return nil, 0, fmt.Errorf("%w: no image has the blob %s", ErrNotFound, d)
	}
	r, err := s.blobs.Open(d)
	if errors.Is(err, blob.ErrNotFound) {
		return nil, 0, fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, 0, err
	}
	return r, r.Size(), nil
}
