package archive

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/skep-io/skep/image/blob"
	"github.com/skep-io/skep/image/compression"
	"github.com/skep-io/skep/image/manifest"
)

// Names of the documents of an archive, all at its top.
const (
	layoutFile   = "oci-layout"
	indexFile    = "index.json"
	manifestFile = "manifest.json"
)

// Read reads an archive of images. It returns at least one image, or an error.
func Read(ctx context.Context, r io.Reader, sink Sink, opts Options) ([]Image, error) {
	opts = opts.withDefaults()
	plain, _, err := compression.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	defer plain.Close()
	c := &contents{sink: sink}
	if err := c.scan(ctx, tar.NewReader(&limited{plain, opts.MaxBytes})); err != nil {
		return nil, err
	}
	return resolve(ctx, c, sink, opts.Platform)
}

// contents is what one pass over a tar found.
type contents struct {
	sink      Sink
	documents map[string][]byte          // by name
	files     map[string]blob.Descriptor // by name, everything that became a blob
	links     map[string]string          // symlinks and hard links, by name, to names
	entries   int
}

func (c *contents) scan(ctx context.Context, tr *tar.Reader) error {
	c.documents, c.files, c.links = map[string][]byte{}, map[string]blob.Descriptor{}, map[string]string{}
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // I3
			return c.badTar(err)
		}
		if c.entries++; c.entries > maxEntries {
			return fmt.Errorf("%w: more than %d entries", ErrInvalid, maxEntries)
		}
		if err := c.entry(ctx, tr, h); err != nil {
			return fmt.Errorf("entry %.200q: %w", h.Name, err)
		}
	}
}

// badTar words an error of the tar reader. At the first entry it means that the
// input is no tar at all.
func (c *contents) badTar(err error) error {
	if c.entries == 0 && errors.Is(err, tar.ErrHeader) {
		return fmt.Errorf("%w: it is not a tar file", ErrNotArchive)
	}
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut off or damaged: %w", ErrInvalid, err)
	}
	return err
}

func (c *contents) entry(ctx context.Context, tr *tar.Reader, h *tar.Header) error {
	if len(h.Name) > maxName || len(h.Linkname) > maxName {
		return fmt.Errorf("%w: a name of more than %d bytes", ErrInvalid, maxName)
	}
	name := clean(h.Name)
	switch h.Typeflag {
	case tar.TypeDir, tar.TypeXGlobalHeader:
		return nil
	case tar.TypeSymlink:
		c.links[name] = clean(path.Join(path.Dir(name), h.Linkname))
		return nil
	case tar.TypeLink:
		c.links[name] = clean(h.Linkname)
		return nil
	case tar.TypeReg:
		return c.file(ctx, tr, name, h.Size)
	default:
		return foreign()
	}
}

// clean normalises a name to use as a key.
func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// foreign is the error for entries that no image archive has.
func foreign() error {
	return fmt.Errorf("%w: it has files that do not belong into one; for the tar of a root filesystem use `skep image import`", ErrNotArchive)
}

// file takes one regular file: a document, a blob by digest, or a file that
// manifest.json may name.
func (c *contents) file(ctx context.Context, r io.Reader, name string, size int64) error {
	switch {
	case name == layoutFile || name == indexFile || name == manifestFile:
		return c.document(r, name, size)
	case strings.HasPrefix(name, "blobs/"):
		d, err := blobName(name)
		if err != nil {
			return err
		}
		return c.put(ctx, r, name, d, size)
	case path.Base(name) == "json" || path.Base(name) == "VERSION" || name == "repositories":
		return nil // of Docker before 1.10; nothing in them is needed
	case isNamed(path.Base(name)):
		return c.put(ctx, r, name, "", size)
	default:
		return foreign()
	}
}

// isNamed tells the files that tools let manifest.json name.
func isNamed(base string) bool {
	if strings.HasPrefix(base, "sha256:") {
		return true
	}
	for _, suffix := range []string{".json", ".tar", ".tar.gz", ".tgz", ".tar.zst"} {
		if strings.HasSuffix(base, suffix) {
			return true
		}
	}
	return false
}

// blobName returns the digest that a name below blobs/ stands for.
func blobName(name string) (digest.Digest, error) {
	parts := strings.Split(name, "/")
	if len(parts) != 3 {
		return "", fmt.Errorf("%w: below blobs/ there must be ALGORITHM/DIGEST", ErrInvalid)
	}
	d := digest.NewDigestFromEncoded(digest.Algorithm(parts[1]), parts[2])
	return d, blob.Check(d)
}

func (c *contents) document(r io.Reader, name string, size int64) error {
	if _, twice := c.documents[name]; twice {
		return fmt.Errorf("%w: it is there twice", ErrInvalid)
	}
	if size > manifest.MaxDocument {
		return fmt.Errorf("%w: %d bytes, the limit is %d", ErrInvalid, size, manifest.MaxDocument)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return c.badTar(err)
	}
	c.documents[name] = data
	return nil
}

func (c *contents) put(ctx context.Context, r io.Reader, name string, want digest.Digest, size int64) error {
	desc, err := c.sink.Put(ctx, r, want, size)
	if err != nil {
		return c.badTar(err)
	}
	c.files[name] = desc
	return nil
}

// Document implements source.
func (c *contents) Document(name string) ([]byte, error) { return c.documents[name], nil }

// Blob implements source: after the scan the blob is there or it never will be.
func (c *contents) Blob(_ context.Context, d digest.Digest, size int64) error {
	return checkSize(c.sink, d, size)
}

// File implements source.
func (c *contents) File(name string) (blob.Descriptor, error) {
	const maxLinks = 16 // Docker 1.9 made one hop; more is a circle
	at := clean(name)
	for range maxLinks {
		if desc, ok := c.files[at]; ok {
			return desc, nil
		}
		next, ok := c.links[at]
		if !ok {
			return blob.Descriptor{}, fmt.Errorf("%w: %s names %.200q, which is not in the archive", ErrInvalid, manifestFile, name)
		}
		at = next
	}
	return blob.Descriptor{}, fmt.Errorf("%w: links of %.200q lead in a circle", ErrInvalid, name)
}

func checkSize(sink Sink, d digest.Digest, size int64) error {
	have, err := sink.Stat(d)
	if errors.Is(err, blob.ErrNotFound) {
		return fmt.Errorf("%w: %s", errMissing, d)
	}
	if err != nil {
		return err
	}
	if have != size {
		return fmt.Errorf("%w: blob %s has %d bytes, its manifest says %d", ErrInvalid, d, have, size)
	}
	return nil
}
