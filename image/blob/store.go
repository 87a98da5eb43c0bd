package blob

import (
	"context"
	_ "crypto/sha256" // digest algorithms are those that are linked in
	_ "crypto/sha512"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

var (
	// ErrNotFound is returned when the store has no blob of that digest.
	ErrNotFound = errors.New("blob not found")
	// ErrDigest is returned when bytes do not have the digest they should have.
	ErrDigest = errors.New("digest mismatch")
	// ErrSize is returned when there are more or fewer bytes than announced.
	ErrSize = errors.New("size mismatch")
	// ErrUnsupported is returned when a digest is malformed or its algorithm is
	// neither sha256 nor sha512.
	ErrUnsupported = errors.New("unsupported digest")
)

const (
	tempPrefix = "tmp-"
	partPrefix = "part-"
	// copyBuffer is the size of one read while copying: large enough that the
	// number of system calls does not matter.
	copyBuffer = 256 << 10
)

// Descriptor names a blob: what it hashes to and how many bytes it has.
type Descriptor struct {
	Digest digest.Digest
	Size   int64
}

// Config says where a store is.
type Config struct {
	// Root is the directory that holds blobs/ and ingest/. It is created, with
	// mode 0700, when it does not exist.
	Root string
	// Step, unless nil, is called with the name of each step that changes the
	// disk, before it is made; when it returns an error the step is not made
	// and the operation fails with that error. Tests enumerate crashes with it.
	Step func(step string) error
}

// Store is a directory of blobs. See the package comment for its layout.
type Store struct {
	root string
	step func(string) error
}

// Open returns the store below cfg.Root and creates its directories.
func Open(cfg Config) (*Store, error) {
	s := &Store{root: cfg.Root, step: cfg.Step}
	if s.step == nil {
		s.step = func(string) error { return nil }
	}
	for _, dir := range []string{
		filepath.Join(cfg.Root, "blobs", string(digest.SHA256)),
		filepath.Join(cfg.Root, "blobs", string(digest.SHA512)),
		s.ingestDir(),
	} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("create blob store: %w", err)
		}
	}
	return s, nil
}

func (s *Store) ingestDir() string { return filepath.Join(s.root, "ingest") }

func (s *Store) path(d digest.Digest) string {
	return filepath.Join(s.root, "blobs", string(d.Algorithm()), d.Encoded())
}

// Check returns nil when d is a well-formed digest of an algorithm that the
// store uses, and an error wrapping [ErrUnsupported] otherwise.
func Check(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("%w %q: %s", ErrUnsupported, d, err)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return fmt.Errorf("%w %q: use sha256 or sha512", ErrUnsupported, d)
	}
	return nil
}

// Stat returns the size of a blob in bytes, or [ErrNotFound].
func (s *Store) Stat(d digest.Digest) (int64, error) {
	if err := Check(d); err != nil {
		return 0, err
	}
	info, err := os.Stat(s.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("%w: %s", ErrNotFound, d)
	}
	if err != nil {
		return 0, fmt.Errorf("look up blob: %w", err)
	}
	return info.Size(), nil
}

// Reader reads one blob. It may outlive the blob's removal.
type Reader struct {
	*os.File
	size int64
}

// Size returns the size of the whole blob in bytes.
func (r *Reader) Size() int64 { return r.size }

// Open returns a reader at the start of a blob, or [ErrNotFound]. The caller
// must close it. The bytes are not hashed again; see [Store.Verify].
func (s *Store) Open(d digest.Digest) (*Reader, error) {
	if err := Check(d); err != nil {
		return nil, err
	}
	f, err := os.Open(s.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, d)
	}
	if err != nil {
		return nil, fmt.Errorf("open blob: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open blob: %w", err)
	}
	return &Reader{File: f, size: info.Size()}, nil
}

// ReadAll returns the whole of a blob and checks its digest. It refuses blobs of
// more than limit bytes with [ErrSize]; damage is [ErrDigest].
func (s *Store) ReadAll(d digest.Digest, limit int64) ([]byte, error) {
	r, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if r.Size() > limit {
		return nil, fmt.Errorf("%w: blob %s has %d bytes, the limit is %d", ErrSize, d, r.Size(), limit)
	}
	data, err := io.ReadAll(io.LimitReader(r, limit))
	if err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d, err)
	}
	if got := d.Algorithm().FromBytes(data); got != d {
		return nil, fmt.Errorf("%w: blob %s now hashes to %s; the disk may be damaged; load the image again", ErrDigest, d, got)
	}
	return data, nil
}

// Verify hashes a blob again and returns [ErrDigest] when it was damaged.
func (s *Store) Verify(ctx context.Context, d digest.Digest) error {
	r, err := s.Open(d)
	if err != nil {
		return err
	}
	defer r.Close()
	h := d.Algorithm().Hash()
	if _, err := copyContext(ctx, h, r); err != nil {
		return fmt.Errorf("read blob %s: %w", d, err)
	}
	if got := digest.NewDigest(d.Algorithm(), h); got != d {
		return fmt.Errorf("%w: blob %s now hashes to %s; the disk may be damaged; load the image again", ErrDigest, d, got)
	}
	return nil
}

// Remove deletes a blob. Removing a blob that is not there is no error.
// Readers that are open keep working.
func (s *Store) Remove(d digest.Digest) error {
	if err := Check(d); err != nil {
		return err
	}
	if err := s.step("remove blob"); err != nil {
		return err
	}
	if err := os.Remove(s.path(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove blob: %w", err)
	}
	return nil
}

// List returns every blob, in no particular order. Files whose names are not
// digests are not blobs and are left out.
func (s *Store) List() ([]Descriptor, error) {
	var blobs []Descriptor
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		entries, err := os.ReadDir(filepath.Join(s.root, "blobs", string(alg)))
		if err != nil {
			return nil, fmt.Errorf("list blobs: %w", err)
		}
		for _, entry := range entries {
			d := digest.NewDigestFromEncoded(alg, entry.Name())
			info, err := entry.Info()
			if Check(d) != nil || err != nil { // removed meanwhile, or not ours
				continue
			}
			blobs = append(blobs, Descriptor{d, info.Size()})
		}
	}
	return blobs, nil
}

// Sweep removes what interrupted writes left: every unnamed ingest, and those
// partial downloads that were last written before expired. No [Ingest] may be
// open.
func (s *Store) Sweep(expired time.Time) error {
	entries, err := os.ReadDir(s.ingestDir())
	if err != nil {
		return fmt.Errorf("sweep ingests: %w", err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			continue // removed meanwhile
		}
		if strings.HasPrefix(entry.Name(), partPrefix) && !info.ModTime().Before(expired) {
			continue
		}
		if err := s.step("remove ingest"); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(s.ingestDir(), entry.Name())); err != nil {
			return fmt.Errorf("sweep ingests: %w", err)
		}
	}
	return nil
}
