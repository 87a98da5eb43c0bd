package archive

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/skep-io/skep/image/blob"
	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/reference"
)

var (
	// ErrNotArchive is returned when the input is something else than an image
	// archive, such as the tar of a root filesystem.
	ErrNotArchive = errors.New("not an image archive")
	// ErrNotRootfs is returned when the input of an import is not a root
	// filesystem, such as an image archive.
	ErrNotRootfs = errors.New("not a root filesystem")
	// ErrInvalid is returned when an archive is damaged, incomplete,
	// contradicts itself, or exceeds a limit.
	ErrInvalid = errors.New("invalid image archive")

	// errMissing is returned when a blob is not in the archive.
	errMissing = fmt.Errorf("%w: a blob is missing", ErrInvalid)
)

const (
	// maxEntries bounds the entries of an archive: 256 images of 127 layers
	// with three files each come to less.
	maxEntries = 100_000
	// maxImages bounds the images of one archive.
	maxImages = 256
	// maxName bounds the names that are kept.
	maxName = 4096
	// defaultMaxBytes bounds what an archive decompresses to.
	defaultMaxBytes = 64 << 30
)

// Sink is where blobs go; *blob.Store is one.
type Sink interface {
	// Put stores what r yields, at most limit bytes. When want is not "" the
	// bytes must have that digest.
	Put(ctx context.Context, r io.Reader, want digest.Digest, limit int64) (blob.Descriptor, error)
	// Stat returns the size of a blob or blob.ErrNotFound.
	Stat(d digest.Digest) (int64, error)
	// Open returns a reader of a blob, which the caller closes.
	Open(d digest.Digest) (*blob.Reader, error)
	// ReadAll returns a whole blob of at most limit bytes, verified.
	ReadAll(d digest.Digest, limit int64) ([]byte, error)
}

// Image is one image found in an archive. All its blobs are in the Sink.
type Image struct {
	Manifest digest.Digest // of the manifest for Options.Platform
	Index    digest.Digest // that led to the manifest, or ""
	// Others are the manifests of the index for other platforms that the
	// archive has in full, so that nodes of those platforms can fetch them.
	Others     []digest.Digest
	References []reference.Reference
}

// Options say how to read an archive. The zero value is good.
type Options struct {
	Platform manifest.Platform // to choose from an index; the host's by default
	MaxBytes int64             // the most that it may decompress to; 64 GiB by default
}

func (o Options) withDefaults() Options {
	if o.Platform.OS == "" {
		o.Platform = manifest.Host()
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	return o
}

// addReferences adds those of more that img does not have yet.
func (img *Image) addReferences(more ...reference.Reference) {
	for _, ref := range more {
		known := false
		for _, have := range img.References {
			known = known || have == ref
		}
		if !known {
			img.References = append(img.References, ref)
		}
	}
}

// add merges img into images by its manifest.
func add(images []Image, img Image) ([]Image, error) {
	for n := range images {
		if images[n].Manifest == img.Manifest && images[n].Index == img.Index {
			images[n].addReferences(img.References...)
			return images, nil
		}
	}
	if len(images) >= maxImages {
		return nil, fmt.Errorf("%w: more than %d images", ErrInvalid, maxImages)
	}
	return append(images, img), nil
}

// limited is a reader that fails, rather than ends, at its limit.
type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return n, fmt.Errorf("%w: it decompresses to too much", ErrInvalid)
	}
	return n, err
}
