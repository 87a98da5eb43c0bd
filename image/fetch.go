package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/skep-io/skep/image/blob"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/reference"
)

const (
	// fetchParallel is how many blobs of one image are fetched at a time.
	fetchParallel = 3
	// fetchBuffer is the size of one read from a source.
	fetchBuffer = 256 << 10
)

// Source is where Fetch gets blobs from: a peer, or several as one. It is not
// trusted: every byte is checked.
type Source interface {
	// Blob returns the bytes of a blob; Fetch closes the reader.
	Blob(ctx context.Context, d digest.Digest) (io.ReadCloser, error)
}

// RangeSource is a Source that can go on with an interrupted download.
type RangeSource interface {
	Source
	// BlobFrom is Blob without the first offset bytes.
	BlobFrom(ctx context.Context, d digest.Digest, offset int64) (io.ReadCloser, error)
}

// Fetch makes sure that the store has the image with the digest of a manifest,
// or of an index of which the host's platform is chosen, and that refs lead to
// it. What is missing comes from src; an interrupted download is gone on with.
// Callers that fetch the same image share the work. Errors of the source, and
// wrong bytes from it, wrap [ErrSource].
func (s *Store) Fetch(ctx context.Context, d digest.Digest, refs []string, src Source) error {
	if err := blob.Check(d); err != nil {
		return err
	}
	var parsed []reference.Reference
	for _, name := range refs {
		ref, err := reference.Parse(name)
		if err != nil {
			return err
		}
		parsed = append(parsed, ref)
	}
	for {
		found, err := s.fetched(ctx, d, src)
		if err != nil {
			return fmt.Errorf("fetch image %s: %w", d, err)
		}
		if len(parsed) == 0 {
			return nil
		}
		// Between the two the image may have been pruned: it had no name yet.
		if err := s.putRefs(found, parsed); !errors.Is(err, ErrNotFound) {
			return err
		}
	}
}

// fetched returns the manifest digest of a stored image, after fetching it when
// it is not there.
func (s *Store) fetched(ctx context.Context, d digest.Digest, src Source) (found digest.Digest, err error) {
	have := func() error {
		return s.view(func(t tables) error {
			found, _, err = t.manifestOf(d)
			return err
		})
	}
	if err := have(); !errors.Is(err, ErrNotFound) {
		return found, err
	}
	if err := s.fetches.do(ctx, d, func(ctx context.Context) error { return s.fetchImage(ctx, d, src) }); err != nil {
		return "", err
	}
	return found, have()
}

// fetchImage fetches everything and then records the image.
func (s *Store) fetchImage(ctx context.Context, d digest.Digest, src Source) error {
	end := s.sessions.begin()
	defer func() { s.finish(end()) }()
	doc, err := s.fetchDocument(ctx, d, src)
	if err != nil {
		return err
	}
	index := digest.Digest("")
	if doc.Index != nil {
		chosen, err := doc.Index.Select(s.platform)
		if err != nil {
			return err
		}
		index, d = d, chosen.Digest
		if doc, err = s.fetchDocument(ctx, d, src); err != nil {
			return err
		}
	}
	if doc.Manifest == nil {
		return fmt.Errorf("%w: an index within an index", manifest.ErrInvalid)
	}
	if err := s.fetchBlobs(ctx, *doc.Manifest, src); err != nil {
		return err
	}
	rec, err := s.newRecord(d, index)
	if err != nil {
		return err
	}
	if err := s.update(func(t tables) error { return t.putImage(d, rec) }); err != nil {
		return err
	}
	s.notify()
	return nil
}

// fetchDocument fetches a manifest or an index, whose size nobody announced.
func (s *Store) fetchDocument(ctx context.Context, d digest.Digest, src Source) (manifest.Document, error) {
	data, err := s.blobs.ReadAll(d, manifest.MaxDocument)
	if err != nil {
		if data, err = readSource(ctx, d, src); err != nil {
			return manifest.Document{}, err
		}
		if _, err = s.blobs.Put(ctx, bytes.NewReader(data), d, manifest.MaxDocument); err != nil {
			return manifest.Document{}, fmt.Errorf("%w: manifest %s: %w", ErrSource, d, err)
		}
	}
	return manifest.Parse(data)
}

func readSource(ctx context.Context, d digest.Digest, src Source) ([]byte, error) {
	r, err := src.Blob(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("%w: manifest %s: %w", ErrSource, d, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, manifest.MaxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("%w: manifest %s: %w", ErrSource, d, err)
	}
	if len(data) > manifest.MaxDocument {
		return nil, fmt.Errorf("%w: manifest %s has more than %d bytes", ErrSource, d, manifest.MaxDocument)
	}
	return data, nil
}

// fetchBlobs fetches the config first: when it does not fit there is no need for
// the layers.
func (s *Store) fetchBlobs(ctx context.Context, m manifest.Manifest, src Source) error {
	if err := s.fetchBlob(ctx, m.Config, src); err != nil {
		return err
	}
	if _, err := s.config(m); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(fetchParallel)
	for _, layer := range m.Blobs() {
		group.Go(func() error { return s.fetchBlob(ctx, layer, src) })
	}
	return group.Wait()
}

// fetchBlob makes sure that a blob is there. Images that share it share the work.
func (s *Store) fetchBlob(ctx context.Context, d Descriptor, src Source) error {
	if size, err := s.blobs.Stat(d.Digest); err == nil && size == d.Size {
		return nil
	}
	return s.pulls.do(ctx, d.Digest, func(ctx context.Context) error {
		in, err := s.blobs.Resume(ctx, d.Digest)
		if err != nil {
			return err
		}
		defer in.Close()
		if err := download(ctx, in, d, src); err != nil {
			return fmt.Errorf("%w: blob %s: %w", ErrSource, d.Digest, err)
		}
		return nil
	})
}

// download completes and commits an ingest. When bytes from an earlier attempt
// turn out wrong, perhaps from another source, it starts over once.
func download(ctx context.Context, in *blob.Ingest, d Descriptor, src Source) error {
	ranged, ok := src.(RangeSource)
	if in.Offset() > 0 && (!ok || in.Offset() > d.Size) {
		if err := in.Restart(); err != nil {
			return err
		}
	}
	if offset := in.Offset(); offset > 0 {
		err := copySource(ctx, in, d, func() (io.ReadCloser, error) { return ranged.BlobFrom(ctx, d.Digest, offset) })
		if err == nil {
			_, err = in.Commit(d.Digest, d.Size)
		}
		if !errors.Is(err, blob.ErrDigest) && !errors.Is(err, blob.ErrSize) {
			return err
		}
		if err := in.Restart(); err != nil {
			return err
		}
	}
	if err := copySource(ctx, in, d, func() (io.ReadCloser, error) { return src.Blob(ctx, d.Digest) }); err != nil {
		return err
	}
	_, err := in.Commit(d.Digest, d.Size)
	return err
}

// copySource appends what open yields, and not a byte more than is missing.
func copySource(ctx context.Context, in *blob.Ingest, d Descriptor, open func() (io.ReadCloser, error)) error {
	if in.Offset() == d.Size {
		return nil
	}
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, fetchBuffer)
	for {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		n, err := r.Read(buf)
		if int64(n) > d.Size-in.Offset() {
			return errors.Join(fmt.Errorf("%w: more than the announced %d bytes", blob.ErrSize, d.Size), in.Restart())
		}
		if _, err := in.Write(buf[:n]); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
