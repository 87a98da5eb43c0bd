package manifest

import (
	_ "crypto/sha256" // digest algorithms are those that are linked in
	_ "crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var (
	// ErrInvalid is returned when a document is malformed or contradicts itself.
	ErrInvalid = errors.New("invalid image")
	// ErrUnsupported is returned when a document is well formed but of a kind
	// that Skep does not run, such as schema 1 or Windows layers.
	ErrUnsupported = errors.New("unsupported image")
	// ErrPlatform is returned when an index has nothing for the platform.
	ErrPlatform = errors.New("no image for this platform")
)

const (
	// MaxDocument is the largest index, manifest or config in bytes. Real ones
	// are a few KiB; registries refuse more than this.
	MaxDocument = 4 << 20
	// MaxLayers bounds the lower directories of one overlay mount. Docker's
	// limit, so that no image that others can run is refused.
	MaxLayers = 127
	// maxManifests bounds the entries of an index: each is looked at.
	maxManifests = 256
)

// Media types of Docker's schema 2, which are read like their OCI equivalents.
const (
	dockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	dockerConfig   = "application/vnd.docker.container.image.v1+json"
	dockerLayer    = "application/vnd.docker.image.rootfs.diff.tar"
	dockerLayerGz  = "application/vnd.docker.image.rootfs.diff.tar.gzip"
	dockerLayerZst = "application/vnd.docker.image.rootfs.diff.tar.zstd"
)

// Descriptor names one blob of an image.
type Descriptor = ocispec.Descriptor

// Manifest is one image for one platform.
type Manifest struct {
	Config Descriptor
	Layers []Descriptor // bottom first; nil when the image is empty
}

// Size returns the bytes of the config and of all layers as they are stored.
func (m Manifest) Size() int64 {
	size := m.Config.Size
	for _, layer := range m.Layers {
		size += layer.Size
	}
	return size
}

// Blobs returns the config and the layers, each once.
func (m Manifest) Blobs() []Descriptor {
	seen := map[digest.Digest]bool{}
	var blobs []Descriptor
	for _, d := range append([]Descriptor{m.Config}, m.Layers...) {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			blobs = append(blobs, d)
		}
	}
	return blobs
}

// Document is what a digest may point at: exactly one of the two is not nil.
type Document struct {
	Manifest *Manifest
	Index    *Index
}

// document has the fields of index, manifest and schema 1 alike.
type document struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        *Descriptor       `json:"config"`
	Layers        []Descriptor      `json:"layers"`
	Manifests     []Descriptor      `json:"manifests"`
	FSLayers      []json.RawMessage `json:"fsLayers"`
}

// Parse reads an index or a manifest, told apart by their content (I2).
func Parse(data []byte) (Document, error) {
	if len(data) > MaxDocument {
		return Document{}, fmt.Errorf("%w: manifest of %d bytes, the limit is %d", ErrInvalid, len(data), MaxDocument)
	}
	var doc document
	if err := json.Unmarshal(data, &doc); err != nil {
		return Document{}, fmt.Errorf("%w: manifest is not JSON: %s", ErrInvalid, err)
	}
	if doc.SchemaVersion == 1 || doc.FSLayers != nil {
		return Document{}, fmt.Errorf("%w: its manifest is Docker schema 1; push it again with a current tool", ErrUnsupported)
	}
	if doc.SchemaVersion != 2 {
		return Document{}, fmt.Errorf("%w: manifest has schemaVersion %d, expected 2", ErrInvalid, doc.SchemaVersion)
	}
	isManifest := doc.Config != nil || doc.Layers != nil
	if isManifest && doc.Manifests != nil {
		return Document{}, fmt.Errorf("%w: the document is both an index and a manifest", ErrInvalid)
	}
	if isManifest {
		m, err := doc.manifest()
		return Document{Manifest: m}, err
	}
	i, err := doc.index()
	return Document{Index: i}, err
}

func (doc document) manifest() (*Manifest, error) {
	switch doc.MediaType {
	case "", ocispec.MediaTypeImageManifest, dockerManifest:
	default:
		return nil, fmt.Errorf("%w: manifest has media type %q", ErrUnsupported, doc.MediaType)
	}
	if doc.Config == nil {
		return nil, fmt.Errorf("%w: manifest has no config", ErrInvalid)
	}
	if t := doc.Config.MediaType; t != ocispec.MediaTypeImageConfig && t != dockerConfig {
		return nil, fmt.Errorf("%w: its config is %q; it is an artifact, not an image that can run", ErrUnsupported, t)
	}
	if err := check(*doc.Config, MaxDocument); err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	if len(doc.Layers) > MaxLayers {
		return nil, fmt.Errorf("%w: %d layers, the limit is %d; squash it", ErrUnsupported, len(doc.Layers), MaxLayers)
	}
	for n, layer := range doc.Layers {
		if err := check(layer, -1); err != nil {
			return nil, fmt.Errorf("layer %d: %w", n+1, err)
		}
		if !isLayer(layer.MediaType) {
			return nil, fmt.Errorf("%w: layer %d is %q", ErrUnsupported, n+1, layer.MediaType)
		}
	}
	return &Manifest{Config: *doc.Config, Layers: doc.Layers}, nil
}

func isLayer(mediaType string) bool {
	switch mediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		dockerLayer, dockerLayerGz, dockerLayerZst:
		return true
	default:
		return false
	}
}

// check holds a descriptor to I1. A negative limit is none.
func check(d Descriptor, limit int64) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("%w: digest %q: %s", ErrInvalid, d.Digest, err)
	}
	if a := d.Digest.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return fmt.Errorf("%w: digest algorithm %q", ErrUnsupported, a)
	}
	if d.Size < 0 || limit >= 0 && d.Size > limit {
		return fmt.Errorf("%w: %s has a size of %d bytes", ErrInvalid, d.Digest, d.Size)
	}
	if len(d.URLs) > 0 {
		return fmt.Errorf("%w: %s is to be fetched from URLs that the image names", ErrUnsupported, d.Digest)
	}
	return nil
}

// Build returns the manifest of an image that came without one (I3). Archives
// of old tools have only a config and layers; two nodes that load the same
// archive must agree on its digest.
func Build(config Descriptor, layers []Descriptor) ([]byte, error) {
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: config.Digest, Size: config.Size},
		Layers:    make([]Descriptor, 0, len(layers)),
	}
	for _, l := range layers {
		m.Layers = append(m.Layers, Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
	}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("build manifest: %w", err)
	}
	if _, err := Parse(data); err != nil {
		return nil, fmt.Errorf("build manifest: %w", err)
	}
	return data, nil
}
