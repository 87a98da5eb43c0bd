package blob

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
)

// Ingest is a blob that is being written. It must be closed; closing it without
// a successful Commit gives up what was written, except that a resumable one
// keeps its bytes for the next [Store.Resume].
type Ingest struct {
	store     *Store
	file      *os.File // nil once committed or closed
	algorithm digest.Algorithm
	hash      hash.Hash
	size      int64
	resumable bool
}

// Ingest begins a blob whose digest may not be known yet.
func (s *Store) Ingest(algorithm digest.Algorithm) (*Ingest, error) {
	if err := s.step("create ingest"); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(s.ingestDir(), tempPrefix)
	if err != nil {
		return nil, fmt.Errorf("begin blob: %w", err)
	}
	return &Ingest{store: s, file: f, algorithm: algorithm, hash: algorithm.Hash()}, nil
}

// Resume begins the blob want, or goes on with it where an earlier attempt
// stopped: [Ingest.Offset] says how many bytes are there already.
func (s *Store) Resume(ctx context.Context, want digest.Digest) (*Ingest, error) {
	if err := Check(want); err != nil {
		return nil, err
	}
	if err := s.step("create ingest"); err != nil {
		return nil, err
	}
	name := partPrefix + string(want.Algorithm()) + "-" + want.Encoded()
	f, err := os.OpenFile(filepath.Join(s.ingestDir(), name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("begin blob: %w", err)
	}
	in := &Ingest{store: s, file: f, algorithm: want.Algorithm(), hash: want.Algorithm().Hash(), resumable: true}
	if in.size, err = copyContext(ctx, in.hash, f); err != nil {
		f.Close()
		return nil, fmt.Errorf("resume blob %s: %w", want, err)
	}
	return in, nil
}

// Offset returns the number of bytes that the ingest has.
func (in *Ingest) Offset() int64 { return in.size }

// Write appends p.
func (in *Ingest) Write(p []byte) (int, error) {
	if err := in.store.step("write ingest"); err != nil {
		return 0, err
	}
	n, err := in.file.Write(p)
	in.hash.Write(p[:n])
	in.size += int64(n)
	if err != nil {
		return n, fmt.Errorf("write blob: %w", err)
	}
	return n, nil
}

// Restart forgets everything written so far.
func (in *Ingest) Restart() error {
	if err := in.store.step("truncate ingest"); err != nil {
		return err
	}
	if err := in.file.Truncate(0); err != nil {
		return fmt.Errorf("restart blob: %w", err)
	}
	if _, err := in.file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("restart blob: %w", err)
	}
	in.hash.Reset()
	in.size = 0
	return nil
}

// Commit makes the ingest a blob and returns its name. When want is not "" the
// bytes must have that digest, which is [ErrDigest] otherwise; when size is not
// negative there must be that many of them ([ErrSize]). On these two errors
// the bytes are worthless, so that a resumable ingest forgets them too.
func (in *Ingest) Commit(want digest.Digest, size int64) (Descriptor, error) {
	desc := Descriptor{digest.NewDigest(in.algorithm, in.hash), in.size}
	if err := desc.check(want, size); err != nil {
		in.resumable = false
		return Descriptor{}, err
	}
	if err := in.store.install(in.file, desc.Digest); err != nil {
		return Descriptor{}, err
	}
	err := in.file.Close()
	in.file = nil
	if err != nil {
		return Descriptor{}, fmt.Errorf("commit blob: %w", err)
	}
	return desc, nil
}

func (d Descriptor) check(want digest.Digest, size int64) error {
	if size >= 0 && d.Size != size {
		return fmt.Errorf("%w: got %d bytes, expected %d of %s", ErrSize, d.Size, size, want)
	}
	if want != "" && d.Digest != want {
		return fmt.Errorf("%w: the bytes hash to %s, expected %s", ErrDigest, d.Digest, want)
	}
	return nil
}

// install moves a complete ingest to its place (I1, I2): the bytes reach the
// disk before the name does, and the name before the caller can refer to it.
func (s *Store) install(f *os.File, d digest.Digest) error {
	if err := f.Chmod(0o444); err != nil {
		return fmt.Errorf("commit blob: %w", err)
	}
	if err := s.step("sync ingest"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync blob: %w", err)
	}
	if err := s.step("rename ingest"); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.path(d)); err != nil {
		return fmt.Errorf("commit blob: %w", err)
	}
	if err := s.step("sync blob directory"); err != nil {
		return err
	}
	return syncDir(filepath.Dir(s.path(d)))
}

// Close gives up an ingest that was not committed; after Commit it does nothing.
func (in *Ingest) Close() error {
	if in.file == nil {
		return nil
	}
	f := in.file
	in.file = nil
	err := f.Close()
	if in.resumable && in.size > 0 {
		return err
	}
	if stepErr := in.store.step("remove ingest"); stepErr != nil {
		return stepErr
	}
	if rmErr := os.Remove(f.Name()); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
		return fmt.Errorf("give up blob: %w", rmErr)
	}
	return err
}

// Put stores what r yields as one blob. want may be "" when the digest is not
// known, and is compared otherwise. More than limit bytes are [ErrSize]. When
// the blob is there already its bytes are still read and compared, so that a
// broken input is refused alike whatever the store holds, but not written;
// unless the stored blob is damaged, which is repaired.
func (s *Store) Put(ctx context.Context, r io.Reader, want digest.Digest, limit int64) (Descriptor, error) {
	algorithm := digest.Canonical
	if want != "" {
		if err := Check(want); err != nil {
			return Descriptor{}, err
		}
		algorithm = want.Algorithm()
		if err := s.Verify(ctx, want); err == nil {
			return compare(ctx, r, want, limit)
		}
	}
	in, err := s.Ingest(algorithm)
	if err != nil {
		return Descriptor{}, err
	}
	defer in.Close()
	if err := copyLimited(ctx, in, r, limit); err != nil {
		return Descriptor{}, err
	}
	return in.Commit(want, -1)
}

func compare(ctx context.Context, r io.Reader, want digest.Digest, limit int64) (Descriptor, error) {
	h := want.Algorithm().Hash()
	counted := &counter{r: r}
	if err := copyLimited(ctx, h, counted, limit); err != nil {
		return Descriptor{}, err
	}
	desc := Descriptor{digest.NewDigest(want.Algorithm(), h), counted.n}
	return desc, desc.check(want, -1)
}

type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// copyLimited copies all of r and returns ErrSize when that is more than limit.
func copyLimited(ctx context.Context, w io.Writer, r io.Reader, limit int64) error {
	n, err := copyContext(ctx, w, io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	if n > limit {
		return fmt.Errorf("%w: more than %d bytes", ErrSize, limit)
	}
	return nil
}

// copyContext is io.Copy that stops between two reads when ctx ends.
func copyContext(ctx context.Context, w io.Writer, r io.Reader) (int64, error) {
	buf := make([]byte, copyBuffer)
	var total int64
	for {
		if err := context.Cause(ctx); err != nil {
			return total, err
		}
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return total, err
			}
			total += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
