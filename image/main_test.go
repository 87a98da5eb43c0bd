package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/image/manifest"
	"github.com/skep-io/skep/image/unpack"
)

func TestMain(m *testing.M) {
	if code, ok := unpack.Child(os.Args); ok {
		unix.Exit(code) // not os.Exit, which makes the race detector sleep for a second
	}
	goleak.VerifyTestMain(m)
}

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: layers have files of other owners")
	}
}

// scratch returns a directory, on a tmpfs of its own where that can be mounted:
// it keeps the many syncs of these tests off the disk.
func scratch(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	if os.Geteuid() != 0 || unix.Mount("skep-test", dir, "tmpfs", 0, "size=1g") != nil {
		return dir
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

func open(t testing.TB, root string, opts ...Option) *Store {
	t.Helper()
	s, err := Open(root, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// layerOf returns the tar of a layer: names ending in "/" are directories.
func layerOf(t testing.TB, files ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, name := range files {
		name, content, _ := strings.Cut(name, "=")
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(1, 0)}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o1777
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	w.Write(data)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func marshal(t testing.TB, v any) []byte {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// built is an image in memory: a Source of itself.
type built struct {
	manifest digest.Digest
	layers   []digest.Digest // blobs, bottom first
	blobs    map[digest.Digest][]byte
}

func (b *built) put(mediaType string, data []byte) Descriptor {
	d := digest.FromBytes(data)
	b.blobs[d] = data
	return Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(data))}
}

// build makes an image of uncompressed layers, bottom first, which it compresses.
func build(t testing.TB, layers ...[]byte) *built {
	t.Helper()
	return buildFor(t, manifest.Host(), layers...)
}

func buildFor(t testing.TB, platform manifest.Platform, layers ...[]byte) *built {
	t.Helper()
	b := &built{blobs: map[digest.Digest][]byte{}}
	config := manifest.Config{
		Platform: platform, RootFS: ocispec.RootFS{Type: "layers"},
		Config: manifest.ProgramConfig{ImageConfig: ocispec.ImageConfig{
			Entrypoint: []string{"/bin/app"}, Env: []string{"A=B"}, User: "7", Labels: map[string]string{"l": "v"},
		}},
	}
	doc := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest}
	for _, layer := range layers {
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(layer))
		desc := b.put(ocispec.MediaTypeImageLayerGzip, gzipped(t, layer))
		doc.Layers = append(doc.Layers, desc)
		b.layers = append(b.layers, desc.Digest)
	}
	doc.Config = b.put(ocispec.MediaTypeImageConfig, marshal(t, config))
	b.manifest = b.put(ocispec.MediaTypeImageManifest, marshal(t, doc)).Digest
	return b
}

// alien is a platform that no test runs on.
func alien() manifest.Platform { return manifest.Platform{OS: "linux", Architecture: "s390x"} }

// index wraps the image into an index for this host and an image for another
// platform, which may be missing.
func (b *built) index(t testing.TB, other *built) digest.Digest {
	t.Helper()
	entry := func(b *built, p manifest.Platform) Descriptor {
		return Descriptor{MediaType: ocispec.MediaTypeImageManifest, Digest: b.manifest, Size: int64(len(b.blobs[b.manifest])), Platform: &p}
	}
	list := ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex,
		Manifests: []Descriptor{entry(other, alien()), entry(b, manifest.Host())},
	}
	return b.put(ocispec.MediaTypeImageIndex, marshal(t, list)).Digest
}

// archive returns an OCI layout as a tar in which top, a manifest or an index,
// is called name.
func (b *built) archive(t testing.TB, top digest.Digest, mediaType, name string) []byte {
	t.Helper()
	entry := Descriptor{MediaType: mediaType, Digest: top, Size: int64(len(b.blobs[top]))}
	if name != "" {
		entry.Annotations = map[string]string{"io.containerd.image.name": name}
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	add := func(name string, data []byte) {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data))}); err != nil {
			t.Fatal(err)
		}
		w.Write(data)
	}
	for d, data := range b.blobs {
		add("blobs/sha256/"+d.Encoded(), data)
	}
	add("index.json", marshal(t, ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, Manifests: []Descriptor{entry}}))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func (b *built) tar(t testing.TB, name string) []byte {
	return b.archive(t, b.manifest, ocispec.MediaTypeImageManifest, name)
}

// Blob implements Source.
func (b *built) Blob(_ context.Context, d digest.Digest) (io.ReadCloser, error) {
	data, ok := b.blobs[d]
	if !ok {
		return nil, errors.New("the peer does not have it")
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func load(t testing.TB, s *Store, data []byte) []Image {
	t.Helper()
	images, err := s.Load(t.Context(), bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	return images
}

// contents returns the paths of everything below a store's root that is content,
// with directories of layers as one.
func contents(t testing.TB, root string) []string {
	t.Helper()
	paths := []string{}
	for _, pattern := range []string{"blobs/*/*", "ingest/*", "layers/*", "trash/*"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range found {
			name, _ := filepath.Rel(root, path)
			paths = append(paths, name)
		}
	}
	return paths
}

// check holds a store to its invariants I1 to I4, after one GC.
func check(t testing.TB, s *Store) {
	t.Helper()
	if freed, err := s.GC(t.Context()); err != nil || freed.Deferred {
		t.Fatalf("GC = %+v, %v", freed, err)
	}
	want := map[string]bool{}
	images, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range images {
		for _, ref := range img.References { // I2
			if d, err := s.Resolve(t.Context(), ref); err != nil || d != img.Digest {
				t.Errorf("Resolve(%s) = %s, %v, want %s", ref, d, err, img.Digest)
			}
		}
		expect(t, s, img.Digest, want)
	}
	for _, path := range contents(t, s.root) { // I4
		if !want[path] && !strings.HasPrefix(path, "ingest/part-") { // kept to go on with
			t.Errorf("orphan %s", path)
		}
		delete(want, path)
	}
	for path := range want {
		if strings.HasPrefix(path, "blobs/") {
			t.Errorf("missing %s", path)
		}
	}
}

// expect adds what belongs to an image, and verifies its blobs (I1).
func expect(t testing.TB, s *Store, d digest.Digest, want map[string]bool) {
	t.Helper()
	err := s.view(func(tb tables) error {
		_, rec, err := tb.manifestOf(d)
		if err != nil {
			return err
		}
		for _, b := range rec.Blobs {
			want["blobs/sha256/"+b.Encoded()] = true
			if err := s.blobs.Verify(t.Context(), b); err != nil {
				t.Error(err)
			}
		}
		for _, chainID := range rec.Chain {
			if have, err := tb.layer(chainID); have != nil || err != nil { // I3
				want["layers/"+chainID.Encoded()] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
