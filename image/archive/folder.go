package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/image/blob"
	"github.com/skep-io/skep/image/manifest"
)

// ReadDir reads an OCI layout that is a folder.
func ReadDir(ctx context.Context, dir string, sink Sink, opts Options) ([]Image, error) {
	opts = opts.withDefaults()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open image layout: %w", err)
	}
	defer root.Close()
	f := &folder{root: root, sink: sink, left: opts.MaxBytes}
	if data, err := f.Document(indexFile); err != nil || data == nil {
		return nil, errors.Join(err, fmt.Errorf("%w: the folder %s has no %s", ErrNotArchive, dir, indexFile))
	}
	return resolve(ctx, f, sink, opts.Platform)
}

// folder is a source whose blobs are read when they are asked for.
type folder struct {
	root *os.Root
	sink Sink
	left int64 // bytes that may still be read
}

// open opens a regular file of the layout. Others are refused: opening a pipe
// would wait for ever.
func (f *folder) open(name string) (*os.File, int64, error) {
	file, err := f.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is not a regular file", ErrInvalid, name)
	}
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, info.Size(), nil
}

// Document implements source. The folder's manifest.json is not looked at: it
// names tar entries.
func (f *folder) Document(name string) ([]byte, error) {
	if name == manifestFile {
		return nil, nil
	}
	file, size, err := f.open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read image layout: %w", err)
	}
	defer file.Close()
	if size > manifest.MaxDocument {
		return nil, fmt.Errorf("%w: %s has %d bytes, the limit is %d", ErrInvalid, name, size, manifest.MaxDocument)
	}
	return io.ReadAll(io.LimitReader(file, manifest.MaxDocument))
}

// Blob implements source.
func (f *folder) Blob(ctx context.Context, d digest.Digest, size int64) error {
	if f.left -= size; f.left < 0 {
		return fmt.Errorf("%w: its blobs are too large together", ErrInvalid)
	}
	file, _, err := f.open(path.Join("blobs", string(d.Algorithm()), d.Encoded()))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s", errMissing, d)
	}
	if err != nil {
		return fmt.Errorf("read image layout: %w", err)
	}
	defer file.Close()
	if _, err := f.sink.Put(ctx, file, d, size); err != nil {
		return fmt.Errorf("blob %s: %w", d, err)
	}
	return checkSize(f.sink, d, size)
}

// File implements source; nothing in a folder is named by manifest.json.
func (f *folder) File(name string) (blob.Descriptor, error) {
	return blob.Descriptor{}, fmt.Errorf("%w: %s", ErrInvalid, name)
}
